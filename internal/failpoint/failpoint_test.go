package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sabotage"
)

// What is deployed can be told by nobody to kill itself, or to break a rule. The build with the tags proves that the search would find
// what it looks for.
func TestReleaseBinariesContainNeitherFailpointNorSabotage(t *testing.T) {
	t.Parallel()
	for program, rule := range map[string]sabotage.Rule{
		"walrelay/cmd/walrelay":       sabotage.ConfirmBeforePut,
		"handlers/carapi/lambda":      sabotage.EventAfterCommit,
		"handlers/cdcconsumer/lambda": sabotage.WrongIdentifier,
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			release, tagged := build(t, program), build(t, program, "-tags", "failpoints,sabotage")
			for _, text := range []string{"failpoint-", string(rule)} {
				require.False(t, bytes.Contains(release, []byte(text)), "the release build knows %s", text)
				require.True(t, bytes.Contains(tagged, []byte(text)))
			}
		})
	}
}

func build(t *testing.T, program string, flags ...string) []byte {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	args := append(append([]string{"build", "-trimpath", "-o", binary}, flags...), "./"+program)
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir, command.Env = "../..", append(os.Environ(), "CGO_ENABLED=0") // as infra/gobuild builds what is deployed
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)
	return content
}
