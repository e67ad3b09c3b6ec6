package awslocal_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// faulty is a server with one of everything, and ways to put into it that return the error.
type faulty struct {
	t      *testing.T
	server *awslocal.Server
	dir    string
	stream streamClient
	events *eventbridge.Client
	queue  queueClient
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{t: t, dir: t.TempDir()}
	server, cfg := start(t, awslocal.Config{Dir: f.dir, Streams: oneShard("s"), Buses: []string{"bus"}, Queues: []string{"q"}})
	f.server, f.stream, f.events, f.queue = server, client(t, cfg), eventbridge.NewFromConfig(cfg), queue(t, cfg)
	return f
}

func (f *faulty) put(ctx context.Context, keys ...string) (*kinesis.PutRecordsOutput, error) {
	in := &kinesis.PutRecordsInput{StreamName: aws.String("s")}
	for _, key := range keys {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: &key, Data: []byte(key)})
	}
	return f.stream.PutRecords(ctx, in)
}

func (f *faulty) publish(details ...string) (*eventbridge.PutEventsOutput, error) {
	in := &eventbridge.PutEventsInput{}
	for _, detail := range details {
		in.Entries = append(in.Entries, event(detail))
	}
	return f.events.PutEvents(f.t.Context(), in)
}

func (f *faulty) stored() []string {
	return f.stream.rest(f.stream.iterator(types.ShardIteratorTypeTrimHorizon))
}

func TestCallErrors(t *testing.T) {
	t.Parallel()
	t.Run("ThrottleHitsTheNamedOperationOnly", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Code: "ProvisionedThroughputExceededException", Count: 1})
		_, err := f.put(t.Context(), "a")
		require.ErrorAs(t, err, new(*types.ProvisionedThroughputExceededException))
		require.Equal(t, 400, status(err))
		require.Empty(t, f.stored())
		require.Equal(t, 1, fault.Struck())
		_, err = f.put(t.Context(), "a")
		require.NoError(t, err, "Count is used up")
		require.Equal(t, []string{"a"}, f.stored())
		require.Empty(t, f.server.Faults().List())
	})
	t.Run("EveryServiceSpeaksItsOwnError", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		f.server.Faults().Add(awslocal.Fault{Service: "events", Kind: awslocal.CallError, Code: "AccessDeniedException"})
		f.server.Faults().Add(awslocal.Fault{Service: "sqs", Kind: awslocal.CallError, Code: "RequestThrottled", Message: "slow down"})
		_, err := f.publish("{}")
		require.ErrorAs(t, err, new(*eventtypes.AccessDeniedException))
		require.Empty(t, journal(t, f.dir))
		_, err = f.queue.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: f.queue.url, MessageBody: aws.String("x")})
		require.ErrorAs(t, err, new(*sqstypes.RequestThrottled))
		require.Equal(t, "slow down", message(t, err))
	})
	t.Run("OnlyTheFirstRuleStrikes", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		first := f.server.Faults().Add(awslocal.Fault{Kind: awslocal.CallError, Status: 500, Operation: "PutRecords"})
		second := f.server.Faults().Add(awslocal.Fault{Kind: awslocal.Reset, Operation: "PutRecords"})
		require.Equal(t, []*awslocal.Active{first, second}, f.server.Faults().List())
		_, err := f.put(t.Context(), "a")
		require.Equal(t, 500, status(err))
		require.Zero(t, second.Struck())
		first.Off()
		_, err = f.put(t.Context(), "a")
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, awslocal.Reset, second.Fault().Kind)
	})
	t.Run("413AsAWSSendsIt", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		f.server.Faults().Add(awslocal.Fault{Operation: "PutEvents", Kind: awslocal.CallError, Status: 413})
		_, err := f.publish("{}")
		require.Equal(t, 413, status(err))
	})
	t.Run("OfAsManyEntries", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Operation: "PutEvents", MinEntries: 2, Kind: awslocal.CallError, Status: 413, Count: 1})
		_, err := f.publish("{}")
		require.NoError(t, err)
		_, err = f.publish("{}", "{}")
		require.Equal(t, 413, status(err))
		require.Equal(t, 1, fault.Struck())
	})
	t.Run("ServerErrorNeedsNoCode", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		f.server.Faults().Add(awslocal.Fault{Kind: awslocal.CallError, Status: 503})
		_, err := f.put(t.Context(), "a")
		require.Equal(t, 503, status(err))
		require.Equal(t, "InternalFailure", code(t, err))
	})
}

func TestEntryErrors(t *testing.T) {
	t.Parallel()
	t.Run("FailSingleRecords", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Kind: awslocal.EntryError, Code: "InternalFailure", Match: "k1"})
		out, err := f.put(t.Context(), "k1", "k10", "k1", "k2")
		require.NoError(t, err)
		require.EqualValues(t, 2, *out.FailedRecordCount)
		require.Equal(t, "InternalFailure", *out.Records[2].ErrorCode)
		require.Equal(t, []string{"k10", "k2"}, f.stored())
		require.Equal(t, 2, fault.Struck())
		fault.Off()
		_, err = f.put(t.Context(), "k1")
		require.NoError(t, err)
		require.Equal(t, []string{"k10", "k2", "k1"}, f.stored())
		require.Equal(t, 2, fault.Struck())
	})
	t.Run("FailSingleEvents", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Kind: awslocal.EntryError, Code: "ThrottlingException", Message: "later", Match: `"aggregateId":"b"`, Count: 1})
		out, err := f.publish(`{"aggregateId":"a"}`, `{"aggregateId":"b"}`, `{"aggregateId":"b","n":2}`)
		require.NoError(t, err)
		require.EqualValues(t, 1, out.FailedEntryCount)
		require.Equal(t, eventtypes.PutEventsResultEntry{ErrorCode: aws.String("ThrottlingException"), ErrorMessage: aws.String("later")}, out.Entries[1])
		require.Len(t, journal(t, f.dir), 2)
		require.Equal(t, 1, fault.Struck())
	})
	t.Run("RateIsRepeatable", func(t *testing.T) {
		t.Parallel()
		failed := func() (places []int) {
			f := newFaulty(t)
			f.server.Faults().Add(awslocal.Fault{Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.3, Seed: 7})
			out, err := f.put(t.Context(), numbered(1, 200)...)
			require.NoError(t, err)
			for i, r := range out.Records {
				if r.ErrorCode != nil {
					places = append(places, i)
				}
			}
			return places
		}
		first := failed()
		require.InDelta(t, 60, len(first), 30)
		require.Equal(t, first, failed())
	})
}

func TestLostConnections(t *testing.T) {
	t.Parallel()
	t.Run("LostAnswerCarriesOut", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.LostAnswer, Count: 1})
		ctx, giveUp := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := f.put(ctx, "a")
			failed <- err
		}()
		labtest.Eventually(t, "the record", func() bool { return len(f.stored()) == 1 })
		select {
		case err := <-failed:
			require.Fail(t, "answered", err)
		default:
		}
		giveUp()
		require.ErrorIs(t, <-failed, context.Canceled)
		require.Equal(t, 1, fault.Struck())
	})
	t.Run("LostAnswerEndsWithTheServer", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.LostAnswer})
		failed := make(chan error)
		go func() {
			_, err := f.put(t.Context(), "a")
			failed <- err
		}()
		labtest.Eventually(t, "the strike", func() bool { return fault.Struck() == 1 })
		require.NoError(t, f.server.Close())
		require.Error(t, <-failed)
	})
	t.Run("ResetCarriesNothingOut", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		fault := f.server.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.Reset, Count: 1})
		_, err := f.put(t.Context(), "a")
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Empty(t, f.stored())
		require.Equal(t, 1, fault.Struck())
	})
	t.Run("ResetAfterCarriesOut", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		f.server.Faults().Add(awslocal.Fault{Operation: "PutEvents", Kind: awslocal.ResetAfter, Match: "second", Count: 1})
		_, err := f.publish(`{"n":"first"}`)
		require.NoError(t, err)
		_, err = f.publish(`{"n":"other"}`, `{"n":"second"}`)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Len(t, journal(t, f.dir), 3)
	})
	t.Run("DelayThenNextFault", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		delay := f.server.Faults().Add(awslocal.Fault{Kind: awslocal.Delay, Delay: 50 * time.Millisecond, Match: "a", Count: 1})
		f.server.Faults().Add(awslocal.Fault{Kind: awslocal.CallError, Status: 500, Match: "a", Count: 1})
		began := time.Now()
		_, err := f.put(t.Context(), "a")
		require.Equal(t, 500, status(err))
		require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
		require.Equal(t, 1, delay.Struck())
	})
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	t.Run("ServesEntriesOneAfterAnother", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		capacity := f.server.Faults().Add(awslocal.Fault{Operation: "PutEvents", Kind: awslocal.Capacity, Capacity: 40})
		began := time.Now()
		var calls errgroup.Group
		for range 2 {
			calls.Go(func() error { _, err := f.publish(`{"n":1}`, `{"n":2}`); return err })
		}
		require.NoError(t, calls.Wait())
		require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
		require.Equal(t, 2, capacity.Struck())
	})
	t.Run("GoesOnWithWhatNobodyWaitsFor", func(t *testing.T) {
		t.Parallel()
		f := newFaulty(t)
		capacity := f.server.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.Capacity, Capacity: 1.0 / 3600})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error, 1)
		go func() {
			_, err := f.put(ctx, "a")
			failed <- err
		}()
		labtest.Eventually(t, "the call", func() bool { return capacity.Struck() == 1 })
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		require.Empty(t, f.stored())
		capacity.Off()
		labtest.Eventually(t, "the record", func() bool { return len(f.stored()) == 1 })
	})
}

func TestFaultValidation(t *testing.T) {
	t.Parallel()
	for want, fault := range map[string]awslocal.Fault{
		"Code is empty: name the error":         {Kind: awslocal.CallError},
		"Status 200 is no error":                {Kind: awslocal.CallError, Status: 200, Code: "x"},
		"Code is empty: name the entry's error": {Kind: awslocal.EntryError},
		"Delay is empty":                        {Kind: awslocal.Delay},
		"Capacity is empty":                     {Kind: awslocal.Capacity},
		`Kind "hiccup" is unknown`:              {Kind: "hiccup"},
		"Rate 2 must be within":                 {Kind: awslocal.Reset, Rate: 2},
		"Count -1 not negative":                 {Kind: awslocal.Reset, Count: -1},
		"MinEntries 2 of Kind \"entry-error\"":  {Kind: awslocal.EntryError, Code: "x", MinEntries: 2},
	} {
		require.ErrorContains(t, fault.Validate(), want)
	}
	var faults awslocal.Faults
	require.Panics(t, func() { faults.Add(awslocal.Fault{}) })
}
