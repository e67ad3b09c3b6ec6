package infra_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// function is a zip that runs behind a Lambda Runtime API of its own.
type function struct {
	invocations chan invocation
	answers     chan answer
}

type invocation struct {
	id      string
	event   []byte
	timeout time.Duration
}

type answer struct {
	id     string
	failed bool // the function returned an error
	body   []byte
}

// start unpacks the zip of a packaged function and runs it with the variables that the template gives it, in values, and those by
// which tests keep it on this machine, in local. It returns once the function has asked for work: its init is over.
func start(t *testing.T, s *stack, name string, values, local map[string]string) *function {
	t.Helper()
	var names, given []string
	id := strings.ToUpper(name[:1]) + name[1:] + "LambdaFunction"
	for variable := range s.Resources[id].get(t, "Environment", "Variables").(map[string]any) {
		names = append(names, variable)
	}
	for variable := range values {
		given = append(given, variable)
	}
	require.ElementsMatch(t, names, given, "the variables of %s", name)

	f := &function{invocations: make(chan invocation), answers: make(chan answer)}
	initialized := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case initialized <- struct{}{}:
		default:
		}
		select {
		case i := <-f.invocations:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", i.id)
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:"+name)
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(i.timeout).UnixMilli()))
			_, _ = w.Write(i.event)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{result}", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		select {
		case f.answers <- answer{r.PathValue("id"), r.PathValue("result") == "error", body}:
		case <-r.Context().Done():
		}
	})
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)

	dir := unzip(t, filepath.Join(s.dir, ".serverless", name+".zip"))
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "bootstrap"))
	command.Dir = dir
	command.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(api.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=" + name, "LAMBDA_TASK_ROOT=" + dir,
		"_HANDLER=" + s.Resources[id].get(t, "Handler").(string),
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
	}
	for _, variables := range []map[string]string{values, local} {
		for variable, value := range variables {
			command.Env = append(command.Env, variable+"="+value)
		}
	}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	require.NoError(t, command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", name, &output)
		}
	})
	select {
	case <-initialized:
	case err := <-ended:
		ended <- err
		t.Fatalf("%s ended in its init: %v", name, err)
	case <-time.After(labtest.Patience):
		t.Fatalf("%s has not finished its init", name)
	}
	return f
}

// invoke sends one event, which is a value or its JSON, and returns the function's answer.
func (f *function) invoke(t *testing.T, event any, timeout time.Duration) answer {
	t.Helper()
	data, ready := event.([]byte)
	if !ready {
		var err error
		data, err = json.Marshal(event)
		require.NoError(t, err)
	}
	late := time.After(timeout + labtest.Patience)
	i := invocation{fmt.Sprintf("request-%d", time.Now().UnixNano()), data, timeout}
	select {
	case f.invocations <- i:
	case <-late:
		t.Fatal("the function does not ask for work")
	}
	select {
	case a := <-f.answers:
		require.Equal(t, i.id, a.id)
		return a
	case <-late:
		t.Fatal("no answer")
	}
	panic("unreachable")
}
