package lambdarun_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// runEnv makes the test's binary the function.
const runEnv = "LAMBDARUN_TEST_RUN"

func TestMain(m *testing.M) {
	switch os.Getenv(runEnv) {
	case "":
		os.Exit(m.Run())
	case "ends":
		os.Exit(7)
	}
	lambda.Start(handle)
}

func handle(ctx context.Context, command string) (answer any, err error) {
	lc, _ := lambdacontext.FromContext(ctx)
	switch command {
	case "fail":
		return nil, errors.New("refused")
	case "exit":
		os.Exit(8)
	case "other": // an answer to an invocation that it does not have
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/other/response"
		response, err := http.Post(url, "application/json", strings.NewReader(`"of another"`))
		if err != nil {
			return nil, err
		}
		return response.StatusCode, response.Body.Close()
	case "block":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	deadline, _ := ctx.Deadline()
	return map[string]any{"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "deadline": deadline.UnixMilli()}, nil
}

func start(t *testing.T, run string) *lambdarun.Function {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), self)
	log := labtest.NewLog(t)
	command.Env, command.Stdout, command.Stderr = []string{runEnv + "=" + run}, log, log
	f, err := lambdarun.Start(command)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

func invoke(t *testing.T, f *lambdarun.Function, command string, timeout time.Duration) lambdarun.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	defer cancel()
	answer, err := f.Invoke(ctx, fmt.Appendf(nil, "%q", command), timeout)
	require.NoError(t, err)
	return answer
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	f := start(t, "serves")
	require.Positive(t, f.PID())

	before := time.Now().Truncate(time.Millisecond)
	answer := invoke(t, f, "", time.Hour)
	require.False(t, answer.Failed)
	var said struct {
		ID, ARN  string
		Deadline int64
	}
	require.NoError(t, json.Unmarshal(answer.Body, &said), "%s", answer.Body)
	require.NotEmpty(t, said.ID)
	require.Regexp(t, "^arn:aws:lambda:", said.ARN)
	require.WithinRange(t, time.UnixMilli(said.Deadline), before.Add(time.Hour), time.Now().Add(time.Hour))
	require.True(t, f.Started.Before(answer.Asked) && answer.Asked.Before(answer.Answered))

	failed := invoke(t, f, "fail", time.Hour)
	require.True(t, failed.Failed)
	require.JSONEq(t, `{"errorMessage":"refused","errorType":"errorString"}`, string(failed.Body))
	require.Equal(t, "400", string(invoke(t, f, "other", time.Hour).Body))
	require.Contains(t, string(invoke(t, f, "block", time.Millisecond).Body), context.DeadlineExceeded.Error())
}

func TestFunctionEnds(t *testing.T) {
	t.Parallel()
	_, err := start(t, "ends").Invoke(t.Context(), []byte(`""`), time.Hour)
	require.EqualError(t, err, "the function ended before it asked for work: exit status 7")
	f := start(t, "serves")
	_, err = f.Invoke(t.Context(), []byte(`"exit"`), time.Hour)
	require.EqualError(t, err, "the function ended before it answered: exit status 8")
	f.Close()
}

func TestInvokeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := start(t, "serves")
	invoke(t, f, "", time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := f.Invoke(ctx, []byte(`"block"`), time.Hour)
	require.ErrorIs(t, err, context.Canceled)
	_, err = f.Invoke(ctx, []byte(`""`), time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}
