package scripts_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// The container has the Go that go.mod asks for, and the Node that CI runs.
func TestDevcontainerHasOurGoAndNode(t *testing.T) {
	t.Parallel()
	read := func(file string) []byte {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return text
	}
	var container struct {
		Image    string
		Features map[string]struct{ Version string }
	}
	require.NoError(t, json.Unmarshal(read("../.devcontainer/devcontainer.json"), &container))
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(read("../go.mod"))
	require.NotNil(t, goVersion)
	require.Contains(t, container.Image, "/go:2-"+string(goVersion[1])+"-")

	var ci struct {
		Jobs map[string]struct {
			Steps []struct {
				With struct {
					NodeVersion string `yaml:"node-version"`
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(read("../.github/workflows/ci.yml"), &ci))
	var node []string
	for _, job := range ci.Jobs {
		for _, step := range job.Steps {
			if step.With.NodeVersion != "" {
				node = append(node, step.With.NodeVersion)
			}
		}
	}
	require.Equal(t, []string{container.Features["ghcr.io/devcontainers/features/node:1"].Version}, node)
}
