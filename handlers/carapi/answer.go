package carapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/outbox"
)

// handler is one route. It returns an answer, or an error that says why there is none. Only handle
// writes to the client and to the log.
type handler func(*http.Request) (answer, error)

type answer struct {
	status     int
	body       any    // nil for an answer without a body
	location   string // header Location
	etag       string // header ETag
	allow      string // header Allow
	retryAfter string // header Retry-After
	replayed   bool   // header Idempotency-Replayed, on the stored answer to an earlier request
	eventID    uuid.UUID
}

// The kinds of errors. Any other error is a fault of this service or of the database.
type (
	// invalidError is a request that the client must correct.
	invalidError struct {
		message string
		fields  map[string]string // by name, the reason
	}
	methodError    struct{ allow string }
	unhealthyError struct{ err error }
	panicError     struct {
		value any
		stack []byte
	}
)

var (
	errNotJSON   = errors.New("the body must be declared as JSON: add the header Content-Type: application/json (curl: -H 'Content-Type: application/json')")
	errNotFound  = errors.New("not found")
	errChanged   = errors.New("the car has changed: its ETag is not the one of If-Match")
	errInFlight  = errors.New("a request with this Idempotency-Key is being answered: try again")
	errKeyReused = errors.New("this Idempotency-Key came with another request before: use a new key for a new request")
)

// invalidHeader is an *invalidError about a header or a parameter.
func invalidHeader(name, reason string) error {
	return &invalidError{message: "invalid request", fields: map[string]string{name: reason}}
}

func (e *invalidError) Error() string   { return e.message }
func (e *methodError) Error() string    { return "method not allowed" }
func (e *unhealthyError) Error() string { return fmt.Sprintf("asking the database: %v", e.err) }
func (e *panicError) Error() string     { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// statusClientGone is nginx's code for a client that went away before its answer. Only the log shows it.
const statusClientGone = 499

type errorBody struct {
	Error  string            `json:"error"`
	Fields map[string]string `json:"fields,omitempty"`
}

// answerTo is the one table from errors to answers. An error that is not in it becomes a 500 that
// tells the client nothing.
func answerTo(ctx context.Context, err error) answer {
	var (
		invalid   *invalidError
		event     *outbox.InvalidEventError
		tooLarge  *http.MaxBytesError
		method    *methodError
		unhealthy *unhealthyError
	)
	switch {
	case errors.As(err, &invalid):
		return answer{status: http.StatusBadRequest, body: errorBody{Error: invalid.message, Fields: invalid.fields}}
	// The client sent the payload. The service makes the other parts of an event, so an error in
	// one of them is a 500.
	case errors.As(err, &event) && event.Field == "event_data":
		return answer{status: http.StatusBadRequest, body: errorBody{Error: "the change cannot be published: its event " + event.Reason}}
	case errors.Is(err, errNotFound):
		return answer{status: http.StatusNotFound, body: errorBody{Error: "not found"}}
	case errors.Is(err, errInFlight):
		return answer{status: http.StatusConflict, body: errorBody{Error: errInFlight.Error()}, retryAfter: "1"}
	case errors.Is(err, errChanged):
		return answer{status: http.StatusPreconditionFailed, body: errorBody{Error: errChanged.Error()}}
	case errors.Is(err, errKeyReused):
		return answer{status: http.StatusUnprocessableEntity, body: errorBody{Error: errKeyReused.Error()}}
	case errors.As(err, &method):
		return answer{status: http.StatusMethodNotAllowed, body: errorBody{Error: "method not allowed"}, allow: method.allow}
	case errors.Is(err, errNotJSON):
		return answer{status: http.StatusUnsupportedMediaType, body: errorBody{Error: errNotJSON.Error()}}
	case errors.As(err, &tooLarge):
		return answer{status: http.StatusRequestEntityTooLarge, body: errorBody{Error: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}}
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return answer{status: statusClientGone}
	case errors.As(err, &unhealthy):
		return answer{status: http.StatusServiceUnavailable, body: errorBody{Error: "the database does not answer"}}
	default:
		return answer{status: http.StatusInternalServerError, body: errorBody{Error: "internal error"}}
	}
}

// handle does what every route needs. It starts the trace, limits the time and the body, recovers
// panics, writes the answer and writes the log line.
func (a *api) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := a.now()
		startTrace(r)
		ctx, cancel := withMargin(r.Context())
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		ans, body, err := run(h, r)
		if err != nil {
			ans = answerTo(r.Context(), err)
			body, _ = encode(ans.body) // cannot fail, because it has only strings
		}
		if !ans.replayed { // the event of a replayed answer has the trace of the first request
			// The header of the editors' draft of W3C Trace Context. From it the client learns the
			// trace id of its event.
			w.Header().Set("Traceresponse", traceparent(r))
		}
		maps.Copy(w.Header(), a.cors)
		write(w, ans, body)
		a.log(r, ans, err, a.now().Sub(start))
	})
}

// run turns a panic into an error. Otherwise net/http would cut the connection, and Lambda would
// throw the whole environment away.
func run(h handler, r *http.Request) (ans answer, body []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	if ans, err = h(r); err == nil {
		body, err = encode(ans.body)
	}
	return ans, body, err
}

// corsOf returns the headers of every answer that let a page of origin read it. All answers share the
// values, so nothing may change them in place.
func corsOf(origin string) http.Header {
	if origin == "" {
		return nil
	}
	return http.Header{
		"Access-Control-Allow-Origin":   {origin},
		"Access-Control-Allow-Headers":  {"Content-Type, Idempotency-Key, If-Match, Traceparent"},
		"Access-Control-Allow-Methods":  {"GET, POST, PATCH, DELETE, OPTIONS"},
		"Access-Control-Expose-Headers": {"ETag, Idempotency-Replayed, Location, Retry-After, Traceresponse"},
	}
}

func write(w http.ResponseWriter, ans answer, body []byte) {
	set := func(name, value string) {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	if ans.status != http.StatusNoContent {
		set("Content-Type", "application/json")
	}
	set("Allow", ans.allow)
	set("ETag", ans.etag)
	set("Location", ans.location)
	set("Retry-After", ans.retryAfter)
	if ans.replayed {
		set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(ans.status)
	// An error means that the client is gone, so nobody is left to tell.
	_, _ = w.Write(body) //nolint:gosec // G705: JSON that is declared as JSON, never HTML
}

// encode is json.Marshal without HTML escapes (< is not \u003c). It returns no bytes for nil, and a
// body that is encoded already as it is.
func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		return v, nil
	}
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// log writes the request's one line. Only the line of a 5xx has the error's text, because the text
// of a 4xx may quote the body.
func (a *api) log(r *http.Request, ans answer, err error, took time.Duration) {
	attrs := append(make([]slog.Attr, 0, 9), // room for the three below
		slog.Int("hop", 1),
		slog.String("method", r.Method),
		slog.String("route", r.Pattern),
		slog.Int("status", ans.status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("trace_id", outbox.TraceID(traceparent(r))),
	)
	if ans.eventID != uuid.Nil {
		attrs = append(attrs, slog.String("event_id", ans.eventID.String()))
	}
	if ans.replayed {
		attrs = append(attrs, slog.Bool("replayed", true))
	}
	level := slog.LevelInfo
	if ans.status >= http.StatusInternalServerError {
		level = slog.LevelError
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	a.logger.LogAttrs(r.Context(), level, "request", attrs...)
}
