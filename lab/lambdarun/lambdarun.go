// Package lambdarun runs the program of a Lambda function behind a Runtime API of its own, as Lambda
// does: one environment, one invocation at a time. aws-lambda-go has only the client of this API.
//
// The rules are those of https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. Left out are
// /runtime/init/error, which aws-lambda-go never calls, and that Lambda stops a function after its
// timeout. The caller decides how long it waits for an answer.
package lambdarun

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Function is a running program of a Lambda function.
type Function struct {
	Started time.Time // just before the program was executed

	command *exec.Cmd
	api     *http.Server
	waiting chan *invocation // taken by a program that asks for work
	ended   chan struct{}    // closed after the program has ended

	mu      sync.Mutex
	current *invocation // what the program works on; nil: nothing
}

type invocation struct {
	id      string
	event   []byte
	timeout time.Duration
	asked   time.Time
	answer  chan Answer // with room for the one answer
}

// Answer is what the function has answered to an invocation.
type Answer struct {
	Failed bool   // the function returned an error
	Body   []byte // JSON: the function's result, or {"errorMessage","errorType",...}

	Asked, Answered time.Time // when the function asked for the event, and when its answer came
}

// Start runs the command, which must not have been started, with nothing but the command's own
// environment and the Runtime API's address. The caller must Close the function.
func Start(command *exec.Cmd) (*Function, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening as the Runtime API: %w", err)
	}
	f := &Function{command: command, waiting: make(chan *invocation), ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", f.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", f.answer(false))
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", f.answer(true))
	f.api = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = f.api.Serve(listener) }()

	command.Env = append(command.Env, "AWS_LAMBDA_RUNTIME_API="+listener.Addr().String())
	f.Started = time.Now()
	if err := command.Start(); err != nil {
		_ = f.api.Close()
		return nil, fmt.Errorf("starting the function: %w", err)
	}
	go func() {
		_ = command.Wait()
		close(f.ended)
	}()
	return f, nil
}

// Invoke sends one event, which is JSON, as soon as the function asks for work, and returns the
// answer. The function is told that it has the timeout from then on. It is an error if the program
// ends before it answers, or ctx does.
func (f *Function) Invoke(ctx context.Context, event []byte, timeout time.Duration) (Answer, error) {
	i := &invocation{id: uuid.NewString(), event: event, timeout: timeout, answer: make(chan Answer, 1)}
	select {
	case f.waiting <- i:
	case <-f.ended:
		return Answer{}, fmt.Errorf("the function ended before it asked for work: %s", f.command.ProcessState)
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("waiting for the function to ask for work: %w", context.Cause(ctx))
	}
	select {
	case answer := <-i.answer:
		return answer, nil
	case <-f.ended:
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("waiting for the function's answer: %w", context.Cause(ctx))
	}
	select {
	case answer := <-i.answer: // a program may answer and end
		return answer, nil
	default:
		return Answer{}, fmt.Errorf("the function ended before it answered: %s", f.command.ProcessState)
	}
}

// PID returns the id of the program's process.
func (f *Function) PID() int { return f.command.Process.Pid }

// Close kills the program and returns after its output is written. It may be called again.
func (f *Function) Close() {
	_ = f.command.Process.Kill()
	<-f.ended
	_ = f.api.Close()
}

// next answers when there is an event. A function may wait for days.
func (f *Function) next(w http.ResponseWriter, r *http.Request) {
	asked := time.Now()
	select {
	case i := <-f.waiting:
		f.mu.Lock()
		i.asked, f.current = asked, i
		f.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", i.id)
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:local")
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(i.timeout).UnixMilli(), 10))
		_, _ = w.Write(i.event)
	case <-r.Context().Done():
	}
}

// answer takes the answer to the current invocation. Lambda refuses an answer to any other.
func (f *Function) answer(failed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answered := time.Now()
		body, err := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil || f.current == nil || f.current.id != r.PathValue("id") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		f.current.answer <- Answer{Failed: failed, Body: body, Asked: f.current.asked, Answered: answered}
		f.current = nil
		w.WriteHeader(http.StatusAccepted)
	}
}
