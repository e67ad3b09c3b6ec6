// Command lambda is package migrate as an AWS Lambda function. It brings the database to the newest version and then makes the login
// users of the components, with the passwords that their secrets hold (package dbuser).
//
// In: requests of CloudFormation for Custom::DatabaseMigration; or, by hand, {"command":"up"}, {"command":"status"},
// {"command":"slots"}, {"command":"partition"} or {"command":"rotate","user":"api"}. Environment: DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN and DB_SSL
// (package rdsdb) of the master user; API_SECRET_ARN, DMS_SECRET_ARN, RETENTION_SECRET_ARN, CARSTATS_SECRET_ARN and CANARY_SECRET_ARN,
// secrets with {"username","password"} of the
// users to make.
// Out: an answer to CloudFormation, which waits for one up to an hour; or JSON. JSON log lines on standard output.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/aws/aws-lambda-go/cfn"
	"github.com/aws/aws-lambda-go/lambda"

	"rds-outbox-demo/internal/lambdalog"
)

func main() { os.Exit(run()) }

// run reads no configuration. A wrong configuration must be an answer to CloudFormation, and Delete must
// work with any configuration.
func run() int {
	logger := lambdalog.New()
	// aws-lambda-go logs the body with which S3 refuses an answer, and that body repeats the signature of the presigned URL. What
	// else it logs, we log.
	log.SetOutput(io.Discard)
	http.DefaultClient = &http.Client{Timeout: answerTimeout} // is what package cfn answers with
	lambda.Start((&function{getenv: os.Getenv, logger: logger}).handle)
	return 0
}

const (
	// reserve is the part of Lambda's time that is kept to see the work end and to answer.
	// answerTimeout is its larger part.
	reserve       = 15 * time.Second
	answerTimeout = 10 * time.Second
	// patience is how long to wait for work that was told to end. Its error then names the statement that
	// took too long.
	patience = 3 * time.Second
)

type function struct {
	getenv func(string) string
	logger *slog.Logger
}

func (f *function) handle(ctx context.Context, event json.RawMessage) (any, error) {
	var request struct {
		RequestType   cfn.RequestType
		Command, User string
	}
	if err := json.Unmarshal(event, &request); err != nil {
		return nil, errors.New("the event is not a JSON object: " + usage)
	}
	if request.RequestType != "" {
		return nil, f.answerCloudFormation(ctx, event)
	}
	var answer any
	var err error
	switch request.Command {
	case "up":
		answer, err = within(ctx, f.up)
	case "status":
		answer, err = within(ctx, f.status)
	case "slots":
		answer, err = within(ctx, f.slots)
	case "partition":
		answer, err = within(ctx, f.partition)
	case "rotate":
		answer, err = within(ctx, func(ctx context.Context) (rotateAnswer, error) { return f.rotate(ctx, request.User) })
	default:
		err = fmt.Errorf("command %q is unknown: %s", request.Command, usage)
	}
	f.log(ctx, "command", slog.String("command", request.Command), answer, err)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

const usage = `send {"command":"up"}, {"command":"status"}, {"command":"slots"}, {"command":"partition"} or {"command":"rotate","user":"api"}, where user may also be dms, retention, carstats or canary`

// log is the one line of an invocation.
func (f *function) log(ctx context.Context, message string, request slog.Attr, answer any, err error) {
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelError, message, request, slog.String("error", err.Error()))
		return
	}
	f.logger.LogAttrs(ctx, slog.LevelInfo, message, request, slog.Any("answer", answer))
}

// within gives work a context that ends early enough to answer. It returns soon after that, even if work
// does not. It turns a panic into an error, because a crash would leave CloudFormation waiting.
func within[T any](ctx context.Context, work func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	if deadline, ok := ctx.Deadline(); ok {
		tooLate := fmt.Errorf("not done %s before the function's timeout: raise the timeout if the work needs more time", reserve)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-reserve), tooLate)
		defer cancel()
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if reason := recover(); reason != nil {
				r.err = fmt.Errorf("panic: %v\n%s", reason, debug.Stack())
			}
			done <- r
		}()
		r.value, r.err = work(ctx)
	}()
	select {
	case r := <-done:
		return r.value, explain(ctx, r.err)
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, explain(ctx, r.err)
	case <-time.After(patience):
		var none T
		return none, context.Cause(ctx)
	}
}

// explain puts the reason for which work was told to end before what work says about it.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
