package scripts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// publishes is the only job with a token that can write. It has neither a checkout nor Go, so it
// runs no code of this repository or of its modules.
const publishes = "../.github/workflows/release.yml publish"

// A tag of an action can be moved to other code. That code could then use a token that can write,
// or credentials that checkout leaves in the folder.
func TestWorkflowsRunPinnedActionsThatCanOnlyRead(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../.github/workflows/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var workflow struct {
			Permissions map[string]string
			Jobs        map[string]struct {
				Permissions map[string]string
				Steps       []struct {
					Uses, Run string
					With      map[string]any
				}
			}
		}
		require.NoError(t, yaml.Unmarshal(text, &workflow), file)
		require.Equal(t, map[string]string{"contents": "read"}, workflow.Permissions, file)
		for name, job := range workflow.Jobs {
			if file+" "+name == publishes {
				require.Equal(t, map[string]string{"contents": "write", "id-token": "write", "attestations": "write"}, job.Permissions)
				for _, step := range job.Steps {
					require.Regexp(t, `^actions/(download-artifact|attest-build-provenance)@|^gh release create `, step.Uses+step.Run)
				}
			} else {
				require.Empty(t, job.Permissions, name)
			}
			for _, step := range job.Steps {
				if step.Uses == "" {
					continue
				}
				require.Regexp(t, pinned, step.Uses)
				if regexp.MustCompile("^actions/checkout@").MatchString(step.Uses) {
					require.Equal(t, false, step.With["persist-credentials"])
				}
			}
		}
	}
}
