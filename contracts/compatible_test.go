package contracts_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/labtest"
)

// node is an object somewhere in a contract, and one of its members.
type node struct {
	path, name string
	object     schema
}

func (n node) member() schema { return n.object["properties"].(schema)[n.name].(schema) }
func (n node) of() string     { return member(n.path, n.name) }

func draw(rt *rapid.T, contract schema) node {
	objects := map[string]schema{}
	walk("", contract, func(path string, at schema) {
		if at["properties"] != nil {
			objects[path] = at
		}
	})
	path := rapid.SampledFrom(slices.Sorted(maps.Keys(objects))).Draw(rt, "object")
	names := slices.Sorted(maps.Keys(objects[path]["properties"].(schema)))
	return node{path, rapid.SampledFrom(names).Draw(rt, "member"), objects[path]}
}

// allowed are the edits that no subscriber notices.
var allowed = map[string]func(*rapid.T, node){
	"NewOptionalMember": func(rt *rapid.T, n node) {
		kind := rapid.SampledFrom([]any{"string", "integer", "object", []any{"array", "null"}}).Draw(rt, "type")
		n.object["properties"].(schema)[rapid.StringMatching("new[A-Z]{3}").Draw(rt, "name")] = schema{"type": kind}
	},
	"OtherWords":  func(rt *rapid.T, n node) { n.member()["description"] = rapid.String().Draw(rt, "description") },
	"NoWords":     func(_ *rapid.T, n node) { delete(n.object, "description"); delete(n.object, "title") },
	"OtherOrder":  func(_ *rapid.T, n node) { slices.Reverse(n.object["required"].([]any)) },
	"TypesInList": func(_ *rapid.T, n node) { n.member()["type"] = list(n.member()["type"]) },
}

// forbidden are the edits that break a subscriber, with what must be said of them.
var forbidden = map[string]func(node) string{
	"Removed": func(n node) string {
		delete(n.object["properties"].(schema), n.name)
		return n.of() + " is gone"
	},
	"Retyped": func(n node) string { n.member()["type"] = "boolean"; return n.of() + " had type" },
	"TypeWidened": func(n node) string {
		n.member()["type"] = append(slices.Clone(list(n.member()["type"])), "boolean")
		return n.of() + " had type"
	},
	"MadeOptional": func(n node) string {
		n.name = n.object["required"].([]any)[0].(string)
		n.object["required"] = n.object["required"].([]any)[1:]
		return "no longer requires " + n.name
	},
	"NothingRequired": func(n node) string { delete(n.object, "required"); return "no longer requires" },
	"NewAndRequired": func(n node) string {
		n.object["properties"].(schema)["mileage"] = schema{"type": "integer"}
		n.object["required"] = append(slices.Clone(n.object["required"].([]any)), "mileage")
		return "now requires mileage"
	},
	"EnumChanged": func(n node) string {
		n.member()["enum"] = append(slices.Clone(list(n.member()["enum"])), "x")
		return n.of() + " had enum"
	},
	"FormatChanged":  func(n node) string { n.member()["format"] = "email"; return n.of() + " had format" },
	"PatternChanged": func(n node) string { n.member()["pattern"] = "^x"; return n.of() + " had pattern" },
	"MinimumRaised":  func(n node) string { n.member()["minimum"] = 2.0; return n.of() + " had minimum" },
	"Closed":         func(n node) string { n.object["additionalProperties"] = false; return "had additionalProperties" },
	"ItemsRetyped":   func(n node) string { n.member()["items"] = schema{"type": "integer"}; return n.of() + "[] had type" },
	"NoMembersAtAll": func(n node) string { delete(n.object, "properties"); return n.of() + " is gone" },
	"OtherDetailType": func(n node) string {
		n.object["x-amazon-events-detail-type"] = "x"
		return "had x-amazon-events-detail-type"
	},
}

func list(value any) []any {
	all, ok := value.([]any)
	if !ok && value != nil {
		all = []any{value}
	}
	return all
}

func TestAllowedEditsPass(t *testing.T) {
	t.Parallel()
	for name, contract := range load(t, ".") {
		t.Run(name, rapid.MakeCheck(func(rt *rapid.T) { edited(rt, contract) }))
	}
}

// edited returns a copy of the contract after some allowed edits.
func edited(rt *rapid.T, contract schema) schema {
	data, err := json.Marshal(contract)
	require.NoError(rt, err)
	var changed schema
	require.NoError(rt, json.Unmarshal(data, &changed))
	for _, kind := range rapid.SliceOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(allowed))), 0, 5).Draw(rt, "edits") {
		allowed[kind](rt, draw(rt, contract).in(changed))
	}
	require.Empty(rt, incompatible("", contract, changed))
	return changed
}

// in finds the same member in another version.
func (n node) in(contract schema) node {
	walk("", contract, func(path string, at schema) {
		if path == n.path {
			n.object = at
		}
	})
	return n
}

func TestForbiddenEditsAreNamed(t *testing.T) {
	t.Parallel()
	contracts := load(t, ".")
	for kind, edit := range forbidden {
		t.Run(kind, rapid.MakeCheck(func(rt *rapid.T) {
			contract := contracts[rapid.SampledFrom(slices.Sorted(maps.Keys(contracts))).Draw(rt, "contract")]
			changed := edited(rt, contract)
			want := edit(draw(rt, contract).in(changed))
			require.Contains(rt, strings.Join(incompatible("", contract, changed), "\n"), want)
		}))
	}
}

func TestUnpublishable(t *testing.T) {
	t.Parallel()
	const name = "CarCreated.v1.json"
	var (
		original = []byte(`{"description": "A car.", "properties": {"color": {"type": "string"}}}`)
		reworded = []byte(`{"description": "A new car.", "properties": {"color": {"type": "string"}}}`)
		without  = []byte(`{"description": "A car.", "properties": {"colour": {"type": "string"}}}`)
	)
	const gone, unreleased = "on it: color is gone", "cp contracts/" + name + " contracts/released/"

	for outcome, test := range map[string]struct {
		contract, released []byte // nil if there is no such file
		committed          bool   // the original is in git's history
		want               string
	}{
		"AsReleasedPasses":                {original, original, true, ""},
		"RewordedAndReleasedPasses":       {reworded, reworded, true, ""},
		"RewordedWantsARelease":           {reworded, original, true, unreleased},
		"NewWantsARelease":                {original, nil, false, unreleased},
		"BrokenIsNamed":                   {without, original, false, gone},
		"BrokenWithItsCopyIsNamed":        {without, without, true, gone},
		"RemovedIsNamed":                  {nil, original, false, "the event is gone"},
		"RemovedWithItsCopyIsNamed":       {nil, nil, true, "the event is gone"},
		"BrokenWithoutItsCopyIsNamed":     {without, nil, true, gone},
		"CopyThatWasChangedAloneIsNamed":  {original, without, true, "on it: colour is gone"},
		"CopyThatWasRewordedAloneIsNamed": {original, reworded, true, unreleased},
	} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(file string, data []byte) {
				path := filepath.Join(dir, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
				require.NoError(t, os.RemoveAll(path))
				if data != nil {
					require.NoError(t, os.WriteFile(path, data, 0o600))
				}
			}
			if test.committed {
				if _, err := exec.LookPath("git"); err != nil {
					const absent = "git is not installed, and the released contracts' history is in it"
					labtest.Missing(t, absent)
				}
				write("released/"+name, original)
				for _, args := range [][]string{{"init"}, {"add", "."}, {"-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-m", "released"}} {
					_, err := git(t, dir, args...)
					require.NoError(t, err)
				}
			}
			write(name, test.contract)
			write("released/"+name, test.released)

			got := unpublishable(t, dir)
			if test.want == "" {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			require.Contains(t, got[0], test.want)
		})
	}
}
