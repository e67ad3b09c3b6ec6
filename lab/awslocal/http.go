package awslocal

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/google/uuid"
)

// The largest request is PutRecords' 10 MiB in base64 and the JSON around it. A larger one is
// answered with 413.
const maxRequestBytes = 16 << 20

// call is one request to one operation.
type call struct {
	ctx       context.Context
	service   string // kinesis, events, sqs, secretsmanager, logs, lambda
	operation string // as in X-Amz-Target
	body      []byte
	faults    *Faults
	done      <-chan struct{} // the server closes
}

type operation func(*call) (any, error)

// handle decodes the request and lets the faults have their say around run. Only this order lets a fault look into the entries.
func handle[In any](run func(*call, *In) (any, error)) operation {
	return func(c *call) (any, error) {
		in := new(In)
		if err := json.Unmarshal(c.body, in); err != nil {
			return nil, clientError("SerializationException", err.Error())
		}
		return c.strike(in, func() (any, error) { return run(c, in) })
	}
}

// apiError is an answer in a service's error shape. Status 413 has no body, as AWS sends it.
type apiError struct {
	status        int
	code, message string
	queryCode     string // SQS: the code of its old protocol, where it differs
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func clientError(code, message string) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: message}
}

func internalError(err error) *apiError {
	return &apiError{status: http.StatusInternalServerError, code: "InternalFailure", message: err.Error()}
}

// ServeHTTP answers one request of an AWS SDK.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if reason := foreign(r); reason != "" {
		http.Error(w, reason, http.StatusForbidden)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		http.Error(w, "the listener is closed", http.StatusServiceUnavailable)
		return
	}
	s.requests.Add(1)
	s.mu.Unlock()
	defer s.requests.Done()

	w.Header().Set("X-Amzn-RequestId", uuid.NewString())
	c := &call{ctx: r.Context(), faults: s.faults, done: s.done}
	c.service, c.operation = named(r)
	out, err := s.answer(c, w, r)
	switch {
	case errors.Is(err, errReset):
		reset(w)
	case errors.Is(err, errLostAnswer):
		select {
		case <-c.ctx.Done():
		case <-c.done:
		}
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case err != nil && c.ctx.Err() != nil: // nobody is there to be told
	case err != nil:
		s.writeError(w, c, err)
	default:
		s.write(w, r, c, out)
	}
}

func (s *Server) answer(c *call, w http.ResponseWriter, r *http.Request) (any, error) {
	op, ok := s.operations[c.service+"."+c.operation]
	switch {
	case ok && c.service == "lambda":
		c.body = queryBody(r)
		return op(c)
	case !ok || r.Method != http.MethodPost:
		return nil, clientError("UnknownOperationException", "")
	}
	var err error
	c.body, err = readBody(w, r)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case err != nil && !tooLarge:
		return nil, errReset // the client is gone
	case tooLarge, c.operation == "PutEvents" && len(c.body) > maxEventsBody:
		return nil, &apiError{status: http.StatusRequestEntityTooLarge}
	}
	return op(c)
}

// readBody makes one allocation of the announced size. io.ReadAll would copy a big batch several
// times.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body := http.MaxBytesReader(w, r.Body, maxRequestBytes)
	if r.ContentLength <= 0 || r.ContentLength > maxRequestBytes {
		return io.ReadAll(body)
	}
	buf := make([]byte, r.ContentLength)
	_, err := io.ReadFull(body, buf)
	return buf, err
}

// foreign returns why a request is refused. A web page must not reach this listener. An Origin
// header marks a page's request, and a page that rebinds its own name to 127.0.0.1 still sends that
// name as Host.
func foreign(r *http.Request) string {
	if r.Header.Get("Origin") != "" {
		return "requests of web pages (Origin header) are refused"
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = strings.Trim(r.Host, "[]")
	}
	switch host {
	case "127.0.0.1", "localhost", "::1":
		return ""
	}
	return "only 127.0.0.1, localhost and [::1] are served, not " + host
}

// services names the service of each prefix of X-Amz-Target.
var services = map[string]string{
	"Kinesis_20131202": "kinesis", "AWSEvents": "events", "AmazonSQS": "sqs", "Logs_20140328": "logs", "secretsmanager": "secretsmanager",
}

// named returns the service and the operation of a request. Lambda's REST protocol has them in the path, the others in X-Amz-Target.
func named(r *http.Request) (service, operation string) {
	if r.Method == http.MethodGet && strings.TrimSuffix(r.URL.Path, "/") == "/2015-03-31/event-source-mappings" {
		return "lambda", "ListEventSourceMappings"
	}
	prefix, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return services[prefix], operation
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, c *call, out any) {
	w.Header().Set("Content-Type", cmp.Or(r.Header.Get("Content-Type"), "application/json"))
	switch out := out.(type) {
	case nil: // an operation without output has an empty body
	case *getRecordsOutput:
		buf := bufio.NewWriterSize(w, 64<<10)
		err := out.writeJSON(buf)
		if err == nil {
			err = buf.Flush()
		}
		if err != nil {
			if c.ctx.Err() == nil {
				s.conf.Log.Error("answering", "operation", c.operation, "err", err)
			}
			panic(http.ErrAbortHandler) // the status is sent, so only a broken connection says that the rest is missing
		}
	default:
		body, err := json.Marshal(out)
		if err != nil {
			s.writeError(w, c, internalError(err))
			return
		}
		_, _ = w.Write(body) // fails only when the client is gone
	}
}

func (s *Server) writeError(w http.ResponseWriter, c *call, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		s.conf.Log.Error("answering", "operation", c.operation, "err", err)
		e = internalError(errors.New("see the listener's log"))
	}
	if e.status == http.StatusRequestEntityTooLarge {
		// boto3#3411 shows no body, no error code, and the connection closed.
		w.Header().Set("Connection", "close")
		w.WriteHeader(e.status)
		return
	}
	header, contentType := w.Header(), "application/x-amz-json-1.1"
	body := map[string]string{"__type": e.code}
	if e.message != "" {
		body["message"] = e.message
	}
	switch c.service {
	case "lambda": // its REST protocol has the code in a header
		contentType = "application/json"
		header.Set("X-Amzn-Errortype", e.code)
		body = map[string]string{"Type": "User", "Message": e.message}
	case "sqs":
		contentType, body["__type"] = "application/x-amz-json-1.0", "com.amazonaws.sqs#"+e.code
		fault := "Sender"
		if e.status >= http.StatusInternalServerError {
			fault = "Receiver"
		}
		header.Set("X-Amzn-Query-Error", cmp.Or(e.queryCode, e.code)+";"+fault)
	}
	header.Set("Content-Type", contentType)
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client is gone
}

// reset ends the connection with RST instead of FIN, so that the client sees "connection reset by peer".
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // no TCP connection of its own: HTTP/2 or a recorder
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
