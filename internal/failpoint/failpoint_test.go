package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is deployed can be told to kill itself by nobody. The build with the tag proves that the search would find a point.
func TestReleaseBinariesContainNoFailpoint(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"walrelay/cmd/walrelay", "handlers/carapi/lambda", "handlers/cdcconsumer/lambda"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			require.False(t, mentions(t, program), "the release build knows a failpoint")
			require.True(t, mentions(t, program, "-tags", "failpoints"))
		})
	}
}

func mentions(t *testing.T, program string, flags ...string) bool {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	args := append(append([]string{"build", "-o", binary}, flags...), "./"+program)
	build := exec.CommandContext(t.Context(), "go", args...)
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)
	return bytes.Contains(content, []byte("failpoint-"))
}
