package awslocal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func event(detail string) types.PutEventsRequestEntry {
	return types.PutEventsRequestEntry{
		EventBusName: aws.String("bus"), Source: aws.String("outbox.car"), DetailType: aws.String("CarCreated"), Detail: &detail,
	}
}

func journal(t *testing.T, dir string) (all []awslocal.BusEvent) {
	t.Helper()
	require.NoError(t, awslocal.ReadBus(dir, func(e awslocal.BusEvent) error {
		all = append(all, e)
		return nil
	}))
	return all
}

func TestPutEventsIsJournaled(t *testing.T) {
	t.Parallel()
	clock := newClock()
	var seen []awslocal.BusEvent
	conf := awslocal.Config{Dir: t.TempDir(), Buses: []string{"bus"}, Now: clock.now, OnEvent: func(e awslocal.BusEvent) { seen = append(seen, e) }}
	server, cfg := start(t, conf)
	clock.pass(1234567 * time.Nanosecond)
	created := time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
	full := event("{\n \"a\": \"<&>\", \"n\": 9007199254740993, \"t\": 1.50}")
	full.Time, full.Resources, full.TraceHeader = &created, []string{"replay/1"}, aws.String("Root=1-67890abc-def012345678912345678901;Sampled=1")
	byARN := event("{}")
	byARN.EventBusName = aws.String("arn:aws:events:us-east-1:000000000000:event-bus/bus")
	toDefault := event("{}")
	toDefault.EventBusName = nil
	out, err := sdk.NewFromConfig(cfg).PutEvents(t.Context(), &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{full, byARN, toDefault}})
	require.NoError(t, err)
	require.Zero(t, out.FailedEntryCount)
	require.Len(t, seen, 3, "OnEvent is called before the answer")

	now := clock.now().UTC()
	want := []awslocal.BusEvent{
		{
			ID: *out.Entries[0].EventId, Bus: "bus", Accepted: now, Source: "outbox.car", DetailType: "CarCreated", Time: created,
			Resources: []string{"replay/1"}, TraceHeader: *full.TraceHeader, Detail: json.RawMessage(`{"a":"<&>","n":9007199254740993,"t":1.50}`),
		},
		{ID: *out.Entries[1].EventId, Bus: "bus", Accepted: now, Source: "outbox.car", DetailType: "CarCreated", Time: now, Detail: json.RawMessage(`{}`)},
		{ID: *out.Entries[2].EventId, Bus: "default", Accepted: now, Source: "outbox.car", DetailType: "CarCreated", Time: now, Detail: json.RawMessage(`{}`)},
	}
	require.Equal(t, want, journal(t, conf.Dir))
	require.Equal(t, want[1:], seen[1:])
	require.NoError(t, server.Close())
	_, _ = start(t, conf)
	require.Equal(t, want, journal(t, conf.Dir), "a restart keeps the journal")
}

// The sources of the codes and texts, and what is unconfirmed, stand at putEvents.
func TestPutEventsEntryErrors(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Buses: []string{"bus"}}
	_, cfg := start(t, conf)
	c := sdk.NewFromConfig(cfg)
	edit := func(edit func(*types.PutEventsRequestEntry)) types.PutEventsRequestEntry {
		e := event("{}")
		edit(&e)
		return e
	}
	nested := func(depth int) string {
		return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1)
	}
	accepted := 0
	for _, tc := range []struct {
		name          string
		entry         types.PutEventsRequestEntry
		code, message string // empty if the entry is accepted
	}{
		{"TakesInt64", event(`{"a":[9223372036854775807,-9223372036854775808,0.1e400,"99999999999999999999"]}`), "", ""},
		{"TakesDepth1000", event(nested(1000)), "", ""},
		{"TakesLongestDetailType", edit(func(e *types.PutEventsRequestEntry) { e.DetailType = aws.String(strings.Repeat("é", 128)) }), "", ""},
		{"TakesUnknownBus", edit(func(e *types.PutEventsRequestEntry) { e.EventBusName = aws.String("absent") }), "", ""},
		{"NoSource", edit(func(e *types.PutEventsRequestEntry) { e.Source = nil }), "InvalidArgument", "Parameter Source is not valid. Reason: Source is a required argument."},
		{"NoDetailType", edit(func(e *types.PutEventsRequestEntry) { e.DetailType = nil }), "InvalidArgument", "Parameter DetailType is not valid. Reason: DetailType is a required argument."},
		{"NoDetail", edit(func(e *types.PutEventsRequestEntry) { e.Detail = nil }), "InvalidArgument", "Parameter Detail is not valid. Reason: Detail is a required argument."},
		{"SourceOfAWS", edit(func(e *types.PutEventsRequestEntry) { e.Source = aws.String("aws.ec2") }), "NotAuthorizedForSourceException", "Not authorized for the source."},
		{"LongDetailType", edit(func(e *types.PutEventsRequestEntry) { e.DetailType = aws.String(strings.Repeat("x", 129)) }), "InvalidArgument", "Parameter DetailType is not valid. Reason: DetailType is longer than 128 characters."},
		{"DetailIsNoJSON", event(`{"a":}`), "MalformedDetail", "Detail is malformed."},
		{"DetailIsArray", event(` [{}]`), "MalformedDetail", "Detail is malformed."},
		{"DetailIsString", event(`"{}"`), "MalformedDetail", "Detail is malformed."},
		{"DetailBeyondInt64", event(`{"a":"\\\"","b":[1,9223372036854775808]}`), "MalformedDetail", "Detail is malformed."},
		{"DetailBelowInt64", event(`{"a":-9223372036854775809}`), "MalformedDetail", "Detail is malformed."},
		{"DetailTooDeep", event(nested(1001)), "MalformedDetail", "Detail is malformed."},
	} {
		out, err := c.PutEvents(t.Context(), &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{event("{}"), tc.entry}})
		require.NoError(t, err, tc.name)
		require.NotNil(t, out.Entries[0].EventId, tc.name)
		if accepted++; tc.code == "" {
			require.NotNil(t, out.Entries[1].EventId, tc.name)
			if tc.name != "TakesUnknownBus" { // answered with an EventId, but goes nowhere
				accepted++
			}
			continue
		}
		require.EqualValues(t, 1, out.FailedEntryCount, tc.name)
		require.Equal(t, types.PutEventsResultEntry{ErrorCode: &tc.code, ErrorMessage: &tc.message}, out.Entries[1], tc.name)
	}
	require.Len(t, journal(t, conf.Dir), accepted)
}

// 10 entries, 1 to 500 characters of TraceHeader and the name of a bus are from botocore 1.43.11,
// events/2015-10-07/service-2.json. 1 MB of all entries is from the announcement of 2026-01-29. 413
// is from boto3#3411, and the size from which the answer is 413 is unconfirmed. putEvents has the
// source of the size limit's text.
func TestPutEventsLimits(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{Buses: []string{"bus"}})
	c := sdk.NewFromConfig(cfg)
	put := func(entries ...types.PutEventsRequestEntry) error {
		_, err := c.PutEvents(t.Context(), &sdk.PutEventsInput{Entries: entries})
		return err
	}
	var eleven []types.PutEventsRequestEntry
	for range 11 {
		eleven = append(eleven, event("{}"))
	}
	require.NoError(t, put(eleven[:10]...))
	require.Equal(t, "ValidationException", code(t, put(eleven...)))
	require.Equal(t, "ValidationException", code(t, put([]types.PutEventsRequestEntry{}...)))

	sized := func(bytes int) types.PutEventsRequestEntry {
		e := event("")
		e.Time, e.Resources = aws.Time(time.Now()), []string{"12345"}
		rest := bytes - len(*e.Source) - len(*e.DetailType) - 14 - 5 - len(`{"a":""}`)
		e.Detail = aws.String(`{"a":"` + strings.Repeat("x", rest) + `"}`)
		return e
	}
	require.NoError(t, put(sized(1<<19), sized(1<<19)))
	err := put(sized(1<<19), sized(1<<19+1))
	require.Equal(t, "ValidationException", code(t, err))
	require.Equal(t, "Total size of the entries in the request is over the limit.", message(t, err))
	require.Equal(t, 413, status(put(sized(5<<20))))

	for _, length := range []int{0, 501} {
		e := event("{}")
		e.TraceHeader = aws.String(strings.Repeat("x", length))
		require.Equal(t, "ValidationException", code(t, put(e)))
	}
	noBus := event("{}")
	noBus.EventBusName = aws.String("")
	require.Equal(t, "ValidationException", code(t, put(noBus)))
}

func TestDescribeEventBus(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{Buses: []string{"bus"}})
	c := sdk.NewFromConfig(cfg)
	for _, name := range []string{"bus", "arn:aws:events:us-east-1:000000000000:event-bus/bus"} {
		out, err := c.DescribeEventBus(t.Context(), &sdk.DescribeEventBusInput{Name: &name})
		require.NoError(t, err)
		require.Equal(t, "arn:aws:events:us-east-1:000000000000:event-bus/bus", *out.Arn)
	}
	_, err := c.DescribeEventBus(t.Context(), &sdk.DescribeEventBusInput{})
	require.NoError(t, err, "the default bus")
	_, err = c.DescribeEventBus(t.Context(), &sdk.DescribeEventBusInput{Name: aws.String("absent")})
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
	require.Equal(t, "Event bus absent does not exist.", message(t, err))
}

func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	const kept = 32 << 10
	conf := awslocal.Config{Dir: t.TempDir(), Buses: []string{"bus"}, JournalBytes: kept}
	_, cfg := start(t, conf)
	c := sdk.NewFromConfig(cfg)
	var ids []string
	for range 300 {
		out, err := c.PutEvents(t.Context(), &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{event(`{"a":"` + strings.Repeat("x", 500) + `"}`)}})
		require.NoError(t, err)
		ids = append(ids, *out.Entries[0].EventId)
	}
	left := journal(t, conf.Dir)
	require.Greater(t, len(left)*600, kept, "at least what was asked for")
	for i, e := range left {
		require.Equal(t, ids[len(ids)-len(left)+i], e.ID)
	}
	size := int64(0)
	for _, name := range []string{"bus.jsonl", "bus.1.jsonl"} {
		info, err := os.Stat(filepath.Join(conf.Dir, name))
		require.NoError(t, err)
		size += info.Size()
	}
	require.Less(t, size, int64(2*kept+2000))
}

// The journal is rotated under its readers. None may see an event twice or miss one in the middle.
func TestJournalIsReadWhileItRotates(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Buses: []string{"bus"}, JournalBytes: 1} // every call rotates
	_, cfg := start(t, conf)
	c := sdk.NewFromConfig(cfg)
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			last := -1
			err := awslocal.ReadBus(conf.Dir, func(e awslocal.BusEvent) error {
				var detail struct{ N int }
				if err := json.Unmarshal(e.Detail, &detail); err != nil {
					return err
				}
				if last >= 0 && detail.N != last+1 {
					return fmt.Errorf("%d behind %d", detail.N, last)
				}
				last = detail.N
				return nil
			})
			if err != nil {
				t.Errorf("reading: %v", err)
				return
			}
		}
	})
	for n := range 300 {
		_, err := c.PutEvents(t.Context(), &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{event(fmt.Sprintf(`{"N":%d}`, n))}})
		require.NoError(t, err)
	}
	close(done)
	reader.Wait()
}

func TestJournalTornLine(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Buses: []string{"bus"}}
	require.Empty(t, journal(t, conf.Dir), "no journal, no events")
	server, cfg := start(t, conf)
	put := func(cfg aws.Config, detail string) {
		_, err := sdk.NewFromConfig(cfg).PutEvents(t.Context(), &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{event(detail)}})
		require.NoError(t, err)
	}
	put(cfg, `{"n":1}`)
	put(cfg, `{"n":2}`)
	require.NoError(t, server.Close())
	path := filepath.Join(conf.Dir, "bus.jsonl")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content[:len(content)-1], 0o600))
	require.Len(t, journal(t, conf.Dir), 1)
	_, cfg = start(t, conf)
	put(cfg, `{"n":3}`)
	left := journal(t, conf.Dir)
	require.Len(t, left, 2)
	require.JSONEq(t, `{"n":3}`, string(left[1].Detail))
	stop := errors.New("stop")
	require.ErrorIs(t, awslocal.ReadBus(conf.Dir, func(awslocal.BusEvent) error { return stop }), stop)
}
