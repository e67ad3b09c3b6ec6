package labtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Template reads a CloudFormation template of the module's root with its short forms written out:
// !Ref x is {"Ref": "x"}.
func Template(t testing.TB, file string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Root(t), file))
	require.NoError(t, err)
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal(content, &document))
	return expand(t, document.Content[0]).(map[string]any)
}

func expand(t testing.TB, node *yaml.Node) any {
	t.Helper()
	if name, short := strings.CutPrefix(node.Tag, "!"); short && !strings.HasPrefix(name, "!") {
		plain := *node
		plain.Tag = ""
		if name != "Ref" && name != "Condition" {
			name = "Fn::" + name
		}
		value := expand(t, &plain)
		if text, ok := value.(string); ok && name == "Fn::GetAtt" {
			id, attribute, _ := strings.Cut(text, ".")
			value = []any{id, attribute}
		}
		return map[string]any{name: value}
	}
	switch node.Kind {
	case yaml.MappingNode:
		all := map[string]any{}
		for i := 0; i < len(node.Content); i += 2 {
			all[node.Content[i].Value] = expand(t, node.Content[i+1])
		}
		return all
	case yaml.SequenceNode:
		all := []any{}
		for _, item := range node.Content {
			all = append(all, expand(t, item))
		}
		return all
	default:
		var value any
		require.NoError(t, node.Decode(&value))
		return value
	}
}
