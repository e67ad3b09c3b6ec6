// Package contracts_test keeps the contracts with the subscribers: a JSON Schema per event type and version, of the whole event as
// EventBridge delivers it. The stack registers the very files (contractSchemas in infra/values.js). They are checked here and nowhere at run time.
//
// In: the files, and events of the generated Go types, which the handlers send, through outbox's record and the consumer onto the bus. Out: what
// an event has and its contract does not say, or the other way round, and what a change of a released contract breaks.
package contracts_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/contracts/eventtypes"
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

func TestEveryContractIsHeldAgainstItsEvents(t *testing.T) {
	t.Parallel()
	contracts := load(t, ".")
	require.ElementsMatch(t, slices.Collect(maps.Keys(contracts)), slices.Collect(maps.Keys(payloads)), "give each contract its Go type in payloads")
	for name, contract := range contracts {
		data, err := eventtypes.Parse(contract["x-amazon-events-detail-type"].(string), []byte("{}"))
		require.NoError(t, err, "%s is not in eventtypes: make generate", name)
		require.Equal(t, aggregateType(contract), data.AggregateType())
	}
}

// Each type of package eventtypes is made from a contract. So an event that takes its types from there has one.
func TestEveryEventTypeHasAContract(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../handlers/*/*.go")
	require.NoError(t, err)
	made := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		source, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(source, func(node ast.Node) bool {
			event, ok := node.(*ast.CompositeLit)
			if !ok || event.Type == nil || types.ExprString(event.Type) != "outbox.Event" || len(event.Elts) == 0 {
				return true
			}
			made++
			for _, element := range event.Elts {
				pair, ok := element.(*ast.KeyValueExpr)
				require.True(t, ok, "%s: name the fields", set.Position(element.Pos()))
				if want := map[string]string{"Type": ".EventType()", "AggregateType": ".AggregateType()"}[types.ExprString(pair.Key)]; want != "" {
					require.True(t, strings.HasSuffix(types.ExprString(pair.Value), want),
						"%s: take it from the type of package contracts/eventtypes: write the contract, then make generate", set.Position(pair.Pos()))
				}
			}
			return true
		})
	}
	require.NotZero(t, made, "handlers make events")
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
