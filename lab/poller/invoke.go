package poller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"
)

const (
	// maxPayload is the limit of a synchronous invocation: 6 MB.
	maxPayload = 6 << 20
	// grace is what an invocation gets after Run's context has ended. Cut off at once, it would leave entries that are
	// published and not answered.
	grace = time.Second

	payloadHead, payloadTail = `{"Records":[`, `]}`
)

// fit returns how many records, from the first on, go into one batch. It is at least one. full
// reports whether the batch takes no more.
func fit(records []*record, batchSize int) (n int, full bool) {
	size := len(payloadHead) + len(payloadTail)
	for n < min(len(records), batchSize) {
		size += len(records[n].json) + 1 // and a comma
		if n > 0 && size > maxPayload {
			return n, true
		}
		n++
	}
	return n, n == batchSize
}

func payload(records []*record) []byte {
	parts := make([][]byte, len(records))
	for i, r := range records {
		parts[i] = r.json
	}
	return slices.Concat([]byte(payloadHead), bytes.Join(parts, []byte(",")), []byte(payloadTail))
}

// invoke runs the function once. The first failed record and all after it come again, and after an error all of them.
func (s *shard) invoke(ctx context.Context, w work) outcome {
	answer, err := call(ctx, s.poller.config.Function, payload(w.records), s.poller.config.FunctionTimeout, s.poller.functionARN())
	var failed []int
	if err == nil {
		failed, err = failedPlaces(answer, func(identifier string) int {
			return slices.IndexFunc(w.records, func(r *record) bool { return r.sequenceNumber == identifier })
		})
	}
	from := 0
	if err == nil {
		from = slices.Min(append(failed, len(w.records)))
	}
	if from < len(w.records) {
		s.poller.config.Log.WarnContext(ctx, "batch failed", "hop", 5, "shard", s.id, "records", len(w.records), "from_place", from,
			"from_sequence_number", w.records[from].sequenceNumber, "retries", w.retries, "error", fmt.Sprint(err))
	}
	return outcome{from, err}
}

// function is Config.Function.
type function = func(ctx context.Context, payload []byte) ([]byte, error)

// Handler makes a Config.Function of a Lambda handler. Each invocation gets its own lambda.Handler,
// as in its own environment. A shared one answers with a buffer that the next invocation writes
// into (aws-lambda-go 1.55.1, lambda/handler.go, where Invoke returns the buffer's bytes after it
// has put the buffer back). Lambda runs one invocation at a time in an environment. The poller does
// not.
func Handler(handler any) func(ctx context.Context, payload []byte) ([]byte, error) {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		return lambda.NewHandler(handler).Invoke(ctx, payload)
	}
}

// call returns the function's answer. A panic and a timeout are errors, as they are to Lambda.
func call(ctx context.Context, f function, payload []byte, timeout time.Duration, arn string) (answer []byte, err error) {
	invocation, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	invocation = lambdacontext.NewContext(invocation, &lambdacontext.LambdaContext{
		AwsRequestID: uuid.NewString(), InvokedFunctionArn: arn,
	})
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	answer, err = f(invocation, payload)
	if errors.Is(invocation.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("task timed out after %s", timeout) // whatever it said too late
	}
	return answer, err
}

// failedPlaces returns the places in the batch of the items that an answer names as failed. place finds an identifier, or returns -1.
// An error means all of them, because Lambda takes an answer that does not name an item of the batch under this very key for a failure of
// the whole batch.
func failedPlaces(answer []byte, place func(identifier string) int) (all []int, err error) {
	if len(bytes.TrimSpace(answer)) == 0 {
		return nil, nil
	}
	// Maps, not structs, because encoding/json takes a member's name in any case.
	var object map[string]json.RawMessage
	if err := json.Unmarshal(answer, &object); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	var failures []map[string]json.RawMessage
	if list, ok := object["batchItemFailures"]; ok {
		if err := json.Unmarshal(list, &failures); err != nil {
			return nil, fmt.Errorf("reading batchItemFailures: %w", err)
		}
	}
	for _, failure := range failures {
		var identifier string
		if err := json.Unmarshal(failure["itemIdentifier"], &identifier); err != nil {
			return nil, fmt.Errorf("reading an itemIdentifier: %w", err)
		}
		n := place(identifier)
		if n < 0 {
			return nil, fmt.Errorf("itemIdentifier %.80q is not in the batch", identifier)
		}
		all = append(all, n)
	}
	return all, nil
}

func (p *Poller) functionARN() string {
	return "arn:aws:lambda:" + p.config.Kinesis.Options().Region + ":" + p.account + ":function:local"
}
