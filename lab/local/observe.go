package local

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/outbox"
)

// Observer hears what passes the hops. Either all of its fields are set, or there is no Observer
// and nothing is watched. The calls come from the path itself, many at once, so they must not
// block. They may keep what they are given, and must not change it.
type Observer struct {
	Requested  func(at time.Time)             // ① a request that may change a car came
	Responded  func(Request)                  // ① and was answered
	Stored     func(awslocal.StreamRecord)    // ④ the local stream took a record; of a stream of the user's own nothing is told
	Invoked    func(Batch)                    // ⑤ the consumer is called
	Returned   func(Batch)                    // ⑤ and has answered
	Putting    func(entries int)              // ⑥ PutEvents is called
	Accepted   func(awslocal.BusEvent)        // ⑥ the bus took an entry; of a bus of the user's own, as far as it has answered
	Put        func(Put)                      // ⑥ PutEvents has answered, or not
	Parked     func(cdcconsumer.ParkedRecord) // the failure queue took a record
	Delivered  func(Delivery)                 // behind ⑥ the subscriber has answered
	Suppressed func(duplicates int)           // as the subscriber's metric says
}

// Request is one request for cars and its answer.
type Request struct {
	At           time.Time
	Took         time.Duration
	Method, Path string
	Status       int
	Location     string // headers of the answer
	ETag         string
	TraceID      string
	Replayed     bool // the answer to an earlier request with the same Idempotency-Key
	Body, Answer []byte
}

// Batch is one invocation of the consumer.
type Batch struct {
	At         time.Time
	Took       time.Duration // of one that has returned, as the following
	Invocation string        // request id
	Shard      string
	Records    []BatchRecord
	Failed     int   // place of the lowest record that has failed; the number of records when none has
	Err        error // the invocation has failed
}

// BatchRecord is a record of a batch.
type BatchRecord struct {
	SequenceNumber string
	Arrival        time.Time
	Data           []byte
	Event          *outbox.Record // nil: no event, or poison
}

// Put is one call of PutEvents. A call that failed has the error's text for each entry.
type Put struct {
	At      time.Time // of its end
	Entries []PutEntry
}

// PutEntry is one entry and its result.
type PutEntry struct {
	EventID       uuid.UUID // of our event
	Event         awslocal.BusEvent
	Code, Message string // of one that was not accepted
}

// Accepted reports whether the bus took the entry.
func (e PutEntry) Accepted() bool { return e.Event.ID != "" }

// Delivery is one invocation of the subscriber.
type Delivery struct {
	At       time.Time
	Took     time.Duration
	Messages []events.SQSMessage
	Failed   map[string]bool // message ids
	Err      error           // all have failed
}

// maxObserved bounds what is kept of a body.
const maxObserved = 8 << 10

// watchAPI tells of the requests that may change a car.
func (o *Observer) watchAPI(next http.Handler) http.Handler {
	if o == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodOptions || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		seen := Request{At: time.Now(), Method: r.Method, Path: r.URL.Path}
		body := &keptBody{ReadCloser: r.Body}
		answer := &keptAnswer{ResponseWriter: w, status: http.StatusInternalServerError} // a panic answers nothing
		r.Body = body
		o.Requested(seen.At)
		defer func() {
			seen.Took, seen.Status, seen.Body, seen.Answer = time.Since(seen.At), answer.status, body.kept, answer.kept
			header := answer.Header()
			seen.Location, seen.ETag, seen.TraceID = header.Get("Location"), header.Get("ETag"), outbox.TraceID(header.Get("Traceresponse"))
			seen.Replayed = header.Get("Idempotency-Replayed") != ""
			o.Responded(seen)
		}()
		next.ServeHTTP(answer, r)
	})
}

// keptBody keeps the beginning of what is read.
type keptBody struct {
	io.ReadCloser
	kept []byte
}

func (b *keptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept = append(b.kept, p[:min(n, maxObserved-len(b.kept))]...)
	return n, err
}

// keptAnswer keeps the status and the beginning of the body.
type keptAnswer struct {
	http.ResponseWriter
	begun  bool
	status int
	kept   []byte
}

func (a *keptAnswer) WriteHeader(status int) {
	a.begun, a.status = true, status
	a.ResponseWriter.WriteHeader(status)
}

func (a *keptAnswer) Write(p []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	a.kept = append(a.kept, p[:min(len(p), maxObserved-len(a.kept))]...)
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController and http.MaxBytesReader, which closes the connection of a body that is too large.
func (a *keptAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// watchedQueue tells what the failure queue took.
type watchedQueue struct {
	*sqs.Client
	observer *Observer
}

func (q watchedQueue) SendMessage(ctx context.Context, in *sqs.SendMessageInput, options ...func(*sqs.Options)) (*sqs.SendMessageOutput, error) {
	out, err := q.Client.SendMessage(ctx, in, options...)
	if err == nil && q.observer != nil {
		var parked cdcconsumer.ParkedRecord
		if json.Unmarshal([]byte(aws.ToString(in.MessageBody)), &parked) == nil {
			q.observer.Parked(parked)
		}
	}
	return out, err
}

// watchSubscriber tells of the subscriber's invocations.
func (o *Observer) watchSubscriber(next subscriber) subscriber {
	if o == nil {
		return next
	}
	return func(ctx context.Context, batch events.SQSEvent) (events.SQSEventResponse, error) {
		d := Delivery{At: time.Now(), Messages: batch.Records, Failed: map[string]bool{}}
		response, err := next(ctx, batch)
		d.Took, d.Err = time.Since(d.At), err
		for _, failure := range response.BatchItemFailures {
			d.Failed[failure.ItemIdentifier] = true
		}
		o.Delivered(d)
		return response, err
	}
}

// subscriber is what Lambda calls for a batch of the subscriber's queue.
type subscriber = func(context.Context, events.SQSEvent) (events.SQSEventResponse, error)

// watchMetrics reads the subscriber's metric from its log, as CloudWatch does. The subscriber's
// answer does not tell a duplicate from a new event.
func (o *Observer) watchMetrics(log *slog.Logger) *slog.Logger {
	if o == nil {
		return log
	}
	return slog.New(metricReader{log.Handler(), o})
}

type metricReader struct {
	slog.Handler
	observer *Observer
}

// Enabled makes the line be there for us, whoever else wants it.
func (h metricReader) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs and WithGroup keep the reader. The embedded ones would return the handler without it.
func (h metricReader) WithAttrs(attributes []slog.Attr) slog.Handler {
	return metricReader{h.Handler.WithAttrs(attributes), h.observer}
}

func (h metricReader) WithGroup(name string) slog.Handler {
	return metricReader{h.Handler.WithGroup(name), h.observer}
}

func (h metricReader) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "car stats" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "duplicates" && a.Value.Kind() == slog.KindInt64 && a.Value.Int64() > 0 {
				h.observer.Suppressed(int(a.Value.Int64()))
			}
			return a.Key != "duplicates"
		})
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}
