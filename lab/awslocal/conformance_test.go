package awslocal_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// TestKinesisConformance asks this listener and two other emulators the same. The tables of cases
// have the answers that all three must give. Where an emulator answers differently, the table of
// differences has its answer, and the service's documented behaviour as judge. A difference that is
// new, or no longer there, fails.
func TestKinesisConformance(t *testing.T) {
	t.Parallel()
	cases := map[string]conformanceCase{}
	for _, table := range []map[string]conformanceCase{streamCases(), putCases(), iteratorCases(), getCases()} {
		for name, c := range table {
			require.NotContains(t, cases, name)
			cases[name] = c
		}
	}
	for _, d := range differences {
		for _, name := range d.cases {
			require.Contains(t, cases, name, "the table of differences names a case that does not exist")
		}
	}
	for name, start := range map[string]func(t *testing.T, limits bool) *subject{
		"ours":            ourselves,
		kinesalite.name:   func(t *testing.T, _ bool) *subject { return kinesalite.start(t) },
		kinesisLocal.name: func(t *testing.T, _ bool) *subject { return kinesisLocal.start(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared := start(t, false)
			for caseName, c := range cases {
				if c.heavy && name == kinesisLocal.name {
					continue
				}
				t.Run(caseName, func(t *testing.T) {
					if !c.movesClock { // parallel tests wait until the loop is over, so none sees time pass
						t.Parallel()
					}
					s := shared
					if c.limits || c.crashes && name == kinesalite.name {
						s = start(t, c.limits)
					}
					compare(t, name, caseName, c, newProbe(t, s, caseName, max(c.shards, 1)))
				})
			}
		})
	}
}

func compare(t *testing.T, server, name string, c conformanceCase, p *probe) {
	t.Helper()
	want, differs := c.want, false
	for _, d := range differences {
		for _, listed := range d.cases {
			if d.server == server && listed == name {
				require.False(t, differs, "the table of differences lists this twice")
				want, differs = d.got, true
			}
		}
	}
	right := c.want
	if p.subject.codesOnly {
		right, want = errorText.ReplaceAllString(right, "$1"), errorText.ReplaceAllString(want, "$1")
	}
	if want == noAnswer {
		p.patience = 3 * time.Second
	}
	got := strings.ReplaceAll(c.run(p), *p.stream, "STREAM")
	if differs {
		require.NotEqual(t, right, got, "no difference any more: take it out of the table")
	}
	require.Equal(t, want, got)
}

var errorText = regexp.MustCompile(`(?m)(Exception): .*`)

// conformanceCase is one behaviour of the service.
type conformanceCase struct {
	shards     int  // of the case's stream, default 1
	movesClock bool // run calls pass
	limits     bool // with Config.ShardLimits
	crashes    bool // kinesalite, so it gets a process of its own
	heavy      bool // not for kinesis-local, which needs a second and more for each MiB (it has no limit that these cases reach)
	// run returns what a client sees, errors as "Code: text" and the stream's name as STREAM.
	run  func(p *probe) string
	want string
}

// difference is what another server says instead of conformanceCase.want.
type difference struct {
	server string
	cases  []string
	got    string
	// judge is what the service is documented to do, and where. It is "unconfirmed" where nothing
	// was found.
	judge string
}

// subject is a server and its clock.
type subject struct {
	conf  aws.Config
	move  func(time.Duration)
	ahead time.Duration // of the real time
	// codesOnly means that the emulator words its errors itself, so only their codes are compared.
	codesOnly bool
}

func ourselves(t *testing.T, limits bool) *subject {
	var ahead atomic.Int64
	_, conf := start(t, awslocal.Config{
		Retention: 24 * time.Hour, ShardLimits: limits, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	return &subject{conf: conf, move: func(d time.Duration) { ahead.Add(int64(d)) }}
}

// probe is a client with a stream of its own.
type probe struct {
	*sdk.Client
	t        *testing.T
	subject  *subject
	stream   *string
	shards   []types.Shard
	patience time.Duration // with what kinesalite does not always answer
}

// noAnswer is what a client sees whose patience is over.
const noAnswer = "no answer"

func newProbe(t *testing.T, s *subject, name string, shards int) *probe {
	t.Helper()
	conf := s.conf.Copy()
	conf.RetryMaxAttempts = 1
	p := &probe{Client: sdk.NewFromConfig(conf), t: t, subject: s, stream: aws.String("stream." + name), patience: labtest.Patience}
	_, err := p.CreateStream(t.Context(), &sdk.CreateStreamInput{StreamName: p.stream, ShardCount: aws.Int32(int32(shards))})
	require.NoError(t, err)
	labtest.Eventually(t, "an active stream", func() bool {
		out, err := p.DescribeStreamSummary(t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: p.stream})
		return err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive
	})
	out, err := p.ListShards(t.Context(), &sdk.ListShardsInput{StreamName: p.stream})
	require.NoError(t, err)
	p.shards = out.Shards
	return p
}

func (p *probe) ctx() context.Context { return p.t.Context() }

func (p *probe) pass(d time.Duration) {
	p.subject.move(d)
	p.subject.ahead += d
}

func (p *probe) now() time.Time { return time.Now().Add(p.subject.ahead) }

var values = regexp.MustCompile(`(?s)Value '.*?' at '`)

// seen words an error. The service no longer shows a refused value (amazon-kinesis-producer#680), kinesalite still does.
func (p *probe) seen(err error) string {
	var e smithy.APIError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.DeadlineExceeded):
		return noAnswer
	case status(err) == 413 || !errors.As(err, &e):
		return fmt.Sprintf("no API answer (%d)", status(err))
	}
	return p.word(e.ErrorCode(), values.ReplaceAllString(e.ErrorMessage(), "Value at '"))
}

func (p *probe) word(code, text string) string {
	if p.subject.codesOnly {
		return code
	}
	return code + ": " + text
}

// put stores one record per text.
func (p *probe) put(key string, texts ...string) (sequences []string) {
	p.t.Helper()
	in := &sdk.PutRecordsInput{StreamName: p.stream}
	for _, text := range texts {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: &key, Data: []byte(text)})
	}
	out, err := p.PutRecords(p.ctx(), in)
	require.NoError(p.t, err)
	for _, r := range out.Records {
		require.NotNil(p.t, r.SequenceNumber)
		sequences = append(sequences, *r.SequenceNumber)
	}
	return sequences
}

// try says how PutRecords ends, with the errors of single records.
func (p *probe) try(records ...types.PutRecordsRequestEntry) string {
	out, err := p.PutRecords(p.ctx(), &sdk.PutRecordsInput{StreamName: p.stream, Records: records})
	if err != nil {
		return p.seen(err)
	}
	failed := []string{"ok"}
	for i, r := range out.Records {
		if r.ErrorCode != nil {
			failed = append(failed, fmt.Sprintf("%d %s", i, p.word(*r.ErrorCode, *r.ErrorMessage)))
		}
	}
	require.Len(p.t, failed, int(*out.FailedRecordCount)+1)
	require.Len(p.t, out.Records, len(records))
	return strings.Join(failed, "\n")
}

// iterate asks for an iterator of the first shard, unless a position names another.
func (p *probe) iterate(ctx context.Context, kind types.ShardIteratorType, positions ...position) (string, error) {
	in := &sdk.GetShardIteratorInput{StreamName: p.stream, ShardId: aws.String(shard0), ShardIteratorType: kind}
	for _, position := range positions {
		position(in)
	}
	out, err := p.GetShardIterator(ctx, in)
	if err != nil {
		return "", err
	}
	return *out.ShardIterator, nil
}

// mustIterate is iterate where an error is not what the case is about.
func (p *probe) mustIterate(kind types.ShardIteratorType, positions ...position) string {
	p.t.Helper()
	it, err := p.iterate(p.ctx(), kind, positions...)
	require.NoError(p.t, err)
	return it
}

// read returns the data from the iterator to the shard's end, and an iterator after it. It does not
// look at MillisBehindLatest, because the emulators say 0 too early.
func (p *probe) read(iterator string) (data, next string) {
	var all []string
	for {
		out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: &iterator})
		if err != nil {
			return strings.Join(append(all, p.seen(err)), " "), iterator
		}
		for _, r := range out.Records {
			all = append(all, string(r.Data))
		}
		if iterator = aws.ToString(out.NextShardIterator); len(out.Records) == 0 || iterator == "" {
			return strings.Join(all, " "), iterator
		}
	}
}

// readFrom is mustIterate and read.
func (p *probe) readFrom(kind types.ShardIteratorType, positions ...position) string {
	p.t.Helper()
	data, _ := p.read(p.mustIterate(kind, positions...))
	return data
}
