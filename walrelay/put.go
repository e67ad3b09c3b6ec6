package walrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"rds-outbox-demo/internal/congestion"
	"rds-outbox-demo/internal/emf"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/jitter"
)

const (
	// senders is how many PutRecords calls may be under way at once, while the link is fast enough. Each has other partition keys, so
	// order does not suffer.
	senders = 8
	// A PutRecords call is limited to 500 records and 10 MiB (API reference). Half of the bytes keeps a call
	// short.
	maxPutRecords = 500
	maxPutBytes   = 5 << 20
	// putTimeout ends a call whose answer does not come. Its records are sent again and may then be on the stream twice. While the link
	// is slower than that, calls are smaller and get more time, up to maxPutTimeout.
	putTimeout    = 10 * time.Second
	maxPutTimeout = 2 * time.Minute
	// minUnanswered is how many bytes may always be unanswered. If the link takes longer than
	// maxPutTimeout for these and one more record, nothing arrives.
	minUnanswered = 16 << 10

	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// maxRefusedBackoff is the longest wait while Kinesis refuses the relay itself. A person has to
	// act, or a new permission has to take effect.
	maxRefusedBackoff = 2 * time.Minute
)

// permanentCodes are errors of a wrong set-up, such as a stream that does not exist or a name that
// cannot be one. They end the relay.
var permanentCodes = []string{"ResourceNotFoundException", "ValidationException", "InvalidArgumentException"}

// refusals are errors of permissions, credentials and keys. Right after a deployment they pass by
// themselves. Later they pass when somebody mends a permission, a credential or a key, which are
// outside the relay. A relay that ended would have to be started again in both cases. So it waits,
// and the slot keeps the WAL meanwhile.
var refusals = []string{
	"AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException",
	"KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException", "KMSOptInRequired",
}

func newWindow() *congestion.Window {
	return congestion.New(congestion.Limits{
		Unit: minUnanswered, Max: senders * maxPutBytes, Call: maxPutBytes, Patience: putTimeout, MaxPatience: maxPutTimeout,
	})
}

// sender puts the pipeline's records on the stream.
type sender struct {
	kinesis Kinesis
	stream  string
	slot    string
	log     *slog.Logger
	numbers *sequences // outlive a session
}

// run sends until ctx ends or Kinesis refuses for good. Then the pipeline is closed, and its failure says why.
func (s sender) run(ctx context.Context, p *pipeline) {
	stop := context.AfterFunc(ctx, func() { p.close(nil) })
	defer stop()
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			failures := 0 // calls in a row that failed as a whole
			for batch := p.take(maxPutRecords, maxPutBytes); batch != nil; batch = p.take(maxPutRecords, maxPutBytes) {
				accepted, err := s.put(ctx, p, batch)
				if isPermanent(err) {
					p.close(err)
					return
				}
				failures++
				if err == nil {
					failures = 0
				}
				p.settle(batch, accepted)
				refused := refusal(err)
				if refused != "" || err == nil {
					p.setRefusal(refused)
				}
				switch {
				case refused != "":
					wait(ctx, refusedBackoff(failures))
				case failures > 0:
					wait(ctx, backoff(failures))
				}
			}
		})
	}
	group.Wait()
}

// put makes one call and returns, by index, what was accepted. With an error nothing counts as accepted.
func (s sender) put(ctx context.Context, p *pipeline, batch []*pending) ([]bool, error) {
	accepted := make([]bool, len(batch))
	input := &kinesis.PutRecordsInput{StreamName: &s.stream, Records: make([]types.PutRecordsRequestEntry, len(batch))}
	for i, record := range batch {
		input.Records[i] = types.PutRecordsRequestEntry{Data: record.data, PartitionKey: &record.key}
	}
	timeout := p.window.Patience()
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	failpoint.Hit(failpoint.RelayBeforePut)
	output, err := s.kinesis.PutRecords(callCtx, input, func(o *kinesis.Options) {
		o.Retryer = aws.NopRetryer{} // the pipeline retries, with its own backoff
		o.Protocol = protocol{o.Protocol}
	})
	failpoint.Hit(failpoint.RelayAfterPut)
	if err == nil && len(output.Records) != len(batch) {
		err = fmt.Errorf("the answer has %d entries for %d records", len(output.Records), len(batch))
	}
	switch {
	case err == nil:
		p.window.Answered(sizeOf(batch), p.unansweredBytes(), time.Since(start))
	case callCtx.Err() != nil:
		p.window.TimedOut(start, timeout)
	default:
		p.window.Refused(time.Since(start))
	}
	if err != nil {
		if ctx.Err() == nil {
			s.logPut(ctx, batch, len(batch), "", time.Since(start), err)
		}
		return accepted, fmt.Errorf("putting records on stream %s: %w", s.stream, err)
	}
	failed, code := 0, ""
	for i, entry := range output.Records {
		// Only a sequence number proves that the record is on the stream. An empty error code means
		// no error.
		accepted[i] = aws.ToString(entry.ErrorCode) == "" && aws.ToString(entry.SequenceNumber) != ""
		if !accepted[i] {
			failed++
			code = aws.ToString(entry.ErrorCode)
			continue
		}
		if before, reordered := s.numbers.accept(batch[i], entry); reordered {
			s.logReordered(ctx, batch[i], entry, before)
		}
	}
	s.logPut(ctx, batch, failed, code, time.Since(start), nil)
	return accepted, nil
}

// logPut writes the one line per call, which is its metrics, too. err is that of a call that failed as a whole.
func (s sender) logPut(ctx context.Context, batch []*pending, failed int, code string, took time.Duration, err error) {
	level := slog.LevelInfo
	attributes := []slog.Attr{
		slog.Int("hop", 4),
		slog.String("StreamName", s.stream),
		slog.String("SlotName", s.slot),
		slog.Int("put", len(batch)-failed),
		slog.Int("retried", failed), // they are sent again
		slog.Int64("duration_ms", took.Milliseconds()),
	}
	switch {
	case err != nil:
		level = slog.LevelWarn
		attributes = append(attributes, slog.String("error", err.Error()))
	case failed > 0:
		level = slog.LevelWarn
		attributes = append(attributes, slog.String("last_code", code))
	}
	var traces []string
	for _, record := range batch {
		if record.traceID != "" && (len(traces) == 0 || traces[len(traces)-1] != record.traceID) {
			traces = append(traces, record.traceID)
		}
	}
	if len(traces) > 0 {
		attributes = append(attributes, slog.Any("trace_ids", traces))
	}
	attributes = append(attributes, emf.Directive(time.Now(), dimensions,
		emf.Metric{Name: "put", Unit: emf.Count}, emf.Metric{Name: "retried", Unit: emf.Count}))
	s.log.LogAttrs(ctx, level, "put", attributes...)
}

func isPermanent(err error) bool {
	var apiErr smithy.APIError
	return errors.As(err, &apiErr) && slices.Contains(permanentCodes, apiErr.ErrorCode())
}

// refusal returns the code when Kinesis refuses the relay, and "" for any other error or none.
func refusal(err error) string {
	var apiErr smithy.APIError
	if errors.As(err, &apiErr) && slices.Contains(refusals, apiErr.ErrorCode()) {
		return apiErr.ErrorCode()
	}
	return ""
}

// backoff doubles from minBackoff to maxBackoff and takes a random part of the upper half, so that relays and lanes that
// failed together do not come back together.
func backoff(attempt int) time.Duration { return backoffBetween(minBackoff, maxBackoff, attempt) }

func refusedBackoff(attempt int) time.Duration {
	return backoffBetween(minBackoff, maxRefusedBackoff, attempt)
}

func backoffBetween(first, longest time.Duration, attempt int) time.Duration {
	d := min(longest, first<<min(attempt-1, 16))
	return d/2 + jitter.Draw(d/2)
}

// wait returns after d or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
