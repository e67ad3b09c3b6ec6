package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"rds-outbox-demo/internal/congestion"
)

// outgoing is one record to be put on the stream.
type outgoing struct {
	key  string // partition key
	data []byte
	sent bool // accepted by Kinesis
}

// putter puts records on the stream (④), from where they take the path of every event. The consumer keeps their order,
// retries, and parks them again when it has to. Sent straight to the bus, they would overtake events that are on their way.
type putter struct {
	client   recordPutter
	stream   string
	window   *congestion.Window // in bytes. It bounds one call, because there is one at a time.
	perCall  int                // records in one call
	pause    time.Duration      // the shortest time per record, which sets the rate
	patience time.Duration      // the longest time without an accepted record
}

type recordPutter interface {
	PutRecords(context.Context, *kinesis.PutRecordsInput, ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

const (
	// A PutRecords call is limited to 500 records and 10 MiB (API reference). Half of the bytes keeps a call short.
	maxPutRecords = 500
	maxPutBytes   = 5 << 20
	minPutBytes   = 16 << 10
	// putTimeout ends a call. Its records are then sent again, and may be on the stream twice. On a
	// slower link calls get smaller, and more time. maxPutTimeout is less than the putter's
	// patience.
	putTimeout    = 10 * time.Second
	maxPutTimeout = 40 * time.Second

	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// newPutter makes one that puts so many records a second. rate is above 0.
func newPutter(s *Setup, rate float64) *putter {
	return &putter{
		client: kinesis.NewFromConfig(s.AWS), stream: s.Stream, window: newPutWindow(),
		perCall:  min(maxPutRecords, max(1, int(rate/10))), // ten calls a second, which is even enough for a consumer
		pause:    time.Duration(float64(time.Second) / rate),
		patience: time.Minute,
	}
}

func newPutWindow() *congestion.Window {
	return congestion.New(congestion.Limits{
		Unit: minPutBytes, Max: maxPutBytes, Call: maxPutBytes, Patience: putTimeout, MaxPatience: maxPutTimeout,
	})
}

// put returns after Kinesis has accepted every record. Records with one key go in their order, one per call. A call may fail
// for some of its records, and the retry of a record would arrive after its successor. If put returns an error, sent says
// which records were accepted.
func (p *putter) put(ctx context.Context, records []*outgoing) error {
	accepted := time.Now() // when a record was accepted last
	failures := 0          // calls in a row that nothing came of
	var cause error        // of the last failure that was not the end of ctx
	for {
		call := p.next(records)
		if len(call) == 0 {
			return nil
		}
		started := time.Now()
		n, err := p.call(ctx, call)
		if n > 0 {
			accepted, failures = time.Now(), 0
		} else {
			failures++
		}
		if err != nil && ctx.Err() == nil {
			cause = err
		}
		wait := time.Until(started.Add(time.Duration(len(call)) * p.pause))
		if err != nil {
			wait = max(wait, backoff(max(failures, 1)))
		}
		switch {
		case err != nil && permanent(err):
			return err
		case err != nil && time.Since(accepted) > p.patience:
			return fmt.Errorf("no record accepted for %s: %w", p.patience, err)
		case !pauseFor(ctx, wait):
			if err == nil && len(p.next(records)) == 0 {
				return nil
			}
			return errors.Join(ctx.Err(), cause)
		}
	}
}

// next returns the records of the next call. They are the first unaccepted record of each key.
func (p *putter) next(records []*outgoing) (call []*outgoing) {
	keys := map[string]bool{}
	bytes := 0
	for _, r := range records {
		if r.sent || keys[r.key] {
			continue
		}
		bytes += len(r.key) + len(r.data)
		if len(call) > 0 && bytes > p.window.Size() {
			break
		}
		keys[r.key] = true
		if call = append(call, r); len(call) == p.perCall {
			break
		}
	}
	return call
}

// call makes one PutRecords call and returns how many records it got through. The error says why not all.
func (p *putter) call(ctx context.Context, records []*outgoing) (accepted int, err error) {
	in := &kinesis.PutRecordsInput{StreamName: &p.stream}
	bytes := 0
	for _, r := range records {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: &r.key, Data: r.data})
		bytes += len(r.key) + len(r.data)
	}
	timeout := p.window.Patience()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	sent := time.Now()
	out, err := p.client.PutRecords(ctx, in, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	switch {
	case err == nil:
		p.window.Answered(bytes, bytes, time.Since(sent))
	case ctx.Err() != nil:
		p.window.TimedOut(sent, timeout)
	default:
		p.window.Refused(time.Since(sent))
	}
	if err == nil && len(out.Records) != len(records) {
		err = fmt.Errorf("the answer has %d entries for %d records", len(out.Records), len(records))
	}
	if err != nil {
		return 0, fmt.Errorf("putting records on stream %s: %w", p.stream, err)
	}
	for i, entry := range out.Records {
		// Only a sequence number proves that the record is on the stream. An empty error code means
		// no error.
		if aws.ToString(entry.ErrorCode) == "" && aws.ToString(entry.SequenceNumber) != "" {
			records[i].sent = true
			accepted++
			continue
		}
		err = fmt.Errorf("putting records on stream %s: %s: %s", p.stream, aws.ToString(entry.ErrorCode), aws.ToString(entry.ErrorMessage))
	}
	return accepted, err
}

// permanentCodes are errors of a call that no retry mends. What is not listed is tried again.
var permanentCodes = []string{
	"ResourceNotFoundException", "AccessDeniedException", "ValidationException", "InvalidArgumentException",
	"UnrecognizedClientException", "ExpiredTokenException", "KMSAccessDeniedException", "KMSDisabledException", "KMSNotFoundException",
}

func permanent(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(permanentCodes, api.ErrorCode())
}

// backoff doubles from minBackoff to maxBackoff, half of it random.
func backoff(failures int) time.Duration {
	d := min(maxBackoff, minBackoff<<min(failures-1, 10))
	return d/2 + rand.N(d/2)
}

// pauseFor returns false as soon as ctx ends.
func pauseFor(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
