package cdcconsumer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
)

// verdict on one entry. Failed is the zero value, because an unknown answer must never count as accepted.
type verdict int

const (
	failed   verdict = iota // to be sent again
	accepted                // on the bus
	refused                 // for its content, or, in company, for that of another
)

// contentRefusals are the codes, of an entry or of a call, that the event's own content can cause. AccessDenied is not among them,
// because a bad deployment must block its shard and not drain it into the failure queue.
var contentRefusals = map[string]bool{
	"MalformedDetail":     true,
	"InvalidArgument":     true,
	"ValidationException": true,
	// A call that is too big, which has an empty body instead of a code.
	strconv.Itoa(http.StatusRequestEntityTooLarge): true,
}

// result of one entry in one call.
type result struct {
	verdict       verdict
	code, message string // why not accepted
}

func (r result) err() error { return fmt.Errorf("PutEvents: %s: %s", r.code, r.message) }

// notAccepted decides by the code alone.
func notAccepted(code, message string) result {
	if contentRefusals[code] {
		return result{refused, code, message}
	}
	return result{failed, code, message}
}

// put makes one PutEvents call of a lane's items.
func (c *Consumer) put(ctx context.Context, l *lane) (r response) {
	r = response{lane: l, results: make([]result, len(l.items)), sent: time.Now()}
	defer func() {
		// Each call is a goroutine, so a panic here would end the process and every batch in it.
		if p := recover(); p != nil {
			err := c.panicked(ctx, p)
			fill(r.results, result{failed, "Panic", err.Error()})
			r.failed = true
		}
		r.took = time.Since(r.sent)
	}()
	entries := make([]types.PutEventsRequestEntry, len(l.items))
	for i, it := range l.items {
		entries[i] = it.entry
	}
	r.timeout = c.window.Patience()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	failpoint.Hit(failpoint.ConsumerBeforePublish)
	output, err := c.config.EventBridge.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: entries}, oneAttempt)
	failpoint.Hit(failpoint.ConsumerAfterPublish)
	if err != nil {
		fill(r.results, callError(err))
		r.failed, r.timedOut = true, ctx.Err() != nil
		return r
	}
	for i := range r.results {
		if i >= len(output.Entries) {
			r.results[i] = result{failed, "NoResult", "the answer has fewer results than the call had entries"}
			continue
		}
		r.results[i] = entryResult(output.Entries[i])
	}
	return r
}

// entryResult reads the answer for one entry. An empty error code means no error.
func entryResult(entry types.PutEventsResultEntry) result {
	switch code := aws.ToString(entry.ErrorCode); {
	case sabotage.On(sabotage.IgnoreFailedEntryCount):
		return result{verdict: accepted}
	case code != "":
		return notAccepted(code, aws.ToString(entry.ErrorMessage))
	case aws.ToString(entry.EventId) == "":
		return result{failed, "NoEventId", "the result has neither an event id nor an error code"}
	default:
		return result{verdict: accepted}
	}
}

// oneAttempt switches the SDK's retries off. They would keep the order, since the same call is sent again. But a lane could not
// tell a bus in trouble from a slow one, and the SDK's backoff would be spent out of our deadline.
func oneAttempt(o *eventbridge.Options) { o.Retryer = aws.NopRetryer{} }

// callError is the result of each entry of a call that failed as a whole.
func callError(err error) result {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.HTTPStatusCode() == http.StatusRequestEntityTooLarge {
		return notAccepted(strconv.Itoa(http.StatusRequestEntityTooLarge), err.Error())
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return notAccepted(api.ErrorCode(), api.ErrorMessage())
	}
	return result{failed, "NoAnswer", err.Error()}
}

func fill(results []result, r result) {
	for i := range results {
		results[i] = r
	}
}
