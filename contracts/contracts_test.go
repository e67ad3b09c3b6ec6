// Package contracts_test keeps the contracts with the subscribers: a JSON Schema per event type and version, of the whole event as
// EventBridge delivers it. The stack registers the very files (contractSchemas in infra/values.js). They are checked here and nowhere at run time.
//
// In: the files, and events of the Go types that the handlers send, through outbox's record and the consumer onto the bus. Out: what
// an event has and its contract does not say, or the other way round, and what a change of a released contract breaks.
package contracts_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// schema is a JSON Schema, or one inside another.
type schema = map[string]any

// keywords are all that a contract may use. EventBridge's registry takes them (draft 4), and incompatible can compare them. It would not see
// a change of any other keyword, so others are refused. additionalProperties is the main one, because subscribers must accept new members.
var keywords = []string{
	"$schema", "title", "description", "x-amazon-events-source", "x-amazon-events-detail-type",
	"type", "properties", "required", "items", "enum", "format", "pattern", "minimum",
}

func TestContractsAreDraft4(t *testing.T) {
	t.Parallel()
	for name, contract := range load(t, ".") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, "http://json-schema.org/draft-04/schema#", contract["$schema"])
			compile(t, contract)
			walk("", contract, func(path string, at schema) {
				for keyword := range at {
					require.Contains(t, keywords, keyword, "of %s", path)
				}
			})
		})
	}
}

// A rule selects by source and detail type. The version is in the latter, but for the first.
func TestFileSaysWhichEventsItIsOf(t *testing.T) {
	t.Parallel()
	for name, contract := range load(t, ".") {
		eventType := strings.TrimSuffix(strings.TrimSuffix(name, ".json"), ".v1")
		require.Equal(t, eventType, contract["x-amazon-events-detail-type"], name)
		properties := contract["properties"].(schema)
		for keyword, member := range map[string]string{"x-amazon-events-source": "source", "x-amazon-events-detail-type": "detail-type"} {
			require.Equal(t, []any{contract[keyword]}, properties[member].(schema)["enum"], "%s: %s", name, member)
		}
	}
}

func TestEveryEventTypeHasAContract(t *testing.T) {
	t.Parallel()
	described := map[string]string{}
	for name, contract := range load(t, ".") {
		described[contract["x-amazon-events-detail-type"].(string)] = name
	}
	sent := eventTypes(t, "../handlers/carapi")
	require.Contains(t, sent, "CarCreated")
	for _, eventType := range sent {
		require.Contains(t, described, eventType, "write its contract: contracts/%s.v1.json", eventType)
	}
	require.ElementsMatch(t, slices.Collect(maps.Values(described)), slices.Collect(maps.Keys(payloads)), "give each contract its Go type in payloads")
}

// eventTypes returns the values of the constants type... of a package.
func eventTypes(t *testing.T, dir string) (types []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(source, func(node ast.Node) bool {
			if constant, ok := node.(*ast.ValueSpec); ok && strings.HasPrefix(constant.Names[0].Name, "type") {
				value, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				types = append(types, value)
			}
			return true
		})
	}
	return types
}

// load reads the contracts of a folder by file name.
func load(t testing.TB, dir string) map[string]schema {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	contracts := map[string]schema{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		contracts[filepath.Base(file)] = parse(t, data)
	}
	return contracts
}

func parse(t testing.TB, data []byte) (parsed schema) {
	t.Helper()
	require.NoError(t, json.Unmarshal(data, &parsed))
	return parsed
}

// compile checks the schema against draft 4's own and returns a validator. It checks formats, too.
func compile(t testing.TB, contract schema) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("contract.json", contract))
	compiled, err := compiler.Compile("contract.json")
	require.NoError(t, err)
	return compiled
}

// walk visits a schema and those inside it, with the path of what they describe, such as detail.eventData.year or resources[].
func walk(path string, at schema, visit func(path string, at schema)) {
	visit(path, at)
	properties, _ := at["properties"].(schema)
	for name, property := range properties {
		walk(member(path, name), property.(schema), visit)
	}
	if items, ok := at["items"].(schema); ok {
		walk(path+"[]", items, visit)
	}
}

func member(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// set returns a keyword that is one string or several in any order (type, required, enum), sorted.
func set(value any) []string {
	var all []string
	switch value := value.(type) {
	case nil:
	case []any:
		for _, one := range value {
			all = append(all, fmt.Sprint(one))
		}
	default:
		all = []string{fmt.Sprint(value)}
	}
	slices.Sort(all)
	return all
}
