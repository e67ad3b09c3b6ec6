package infra_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// start unpacks the zip of a packaged function and runs it. values are the variables that the
// template gives it. local are the variables by which tests keep it on this machine.
func start(t *testing.T, s *stack, name string, values, local map[string]string) *lambdarun.Function {
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

	dir := unzip(t, filepath.Join(s.dir, ".serverless", name+".zip"))
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "bootstrap"))
	command.Dir = dir
	command.Env = []string{
		"AWS_LAMBDA_FUNCTION_NAME=" + name, "LAMBDA_TASK_ROOT=" + dir, "_HANDLER=" + s.Resources[id].get(t, "Handler").(string),
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
	}
	for _, variables := range []map[string]string{values, local} {
		for variable, value := range variables {
			command.Env = append(command.Env, variable+"="+value)
		}
	}
	log := labtest.NewLog(t)
	command.Stdout, command.Stderr = log, log
	f, err := lambdarun.Start(command)
	require.NoError(t, err)
	t.Cleanup(func() {
		f.Close()
		for line := range strings.Lines(log.String()) { // package lambdalog writes it
			var members map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &members), "%s wrote %q", name, line)
			require.Contains(t, members, "msg", "%s wrote %q", name, line)
		}
	})
	return f
}

// invoke sends one event and returns the function's answer.
func invoke(t *testing.T, f *lambdarun.Function, event any, timeout time.Duration) lambdarun.Answer {
	t.Helper()
	data, err := json.Marshal(event)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout+labtest.Patience)
	defer cancel()
	answer, err := f.Invoke(ctx, data, timeout)
	require.NoError(t, err)
	return answer
}
