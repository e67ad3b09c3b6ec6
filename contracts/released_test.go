package contracts_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Deploying publishes the contracts. So a contract that differs from its released copy fails, too. The next change is then compared with the
// contract that subscribers have.
func TestReleasedContractsAreKept(t *testing.T) {
	t.Parallel()
	for _, broken := range unpublishable(t, ".") {
		t.Error(broken)
	}
}

// unpublishable says why the contracts of dir may not be published. The reason is a difference from the published copies in dir/released that
// a subscriber could notice. Copies in git's history count, too, because editing a copy together with its contract does not make a change
// compatible.
func unpublishable(t testing.TB, dir string) (reasons []string) {
	t.Helper()
	current := load(t, dir)
	versions := history(t, dir)
	for name, released := range load(t, filepath.Join(dir, "released")) {
		versions[name] = append([]schema{released}, versions[name]...)
	}
	broken := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		var differences []string
		for _, released := range versions[name] {
			differences = append(differences, incompatible("", released, current[name])...)
		}
		slices.Sort(differences)
		broken[name] = len(differences) > 0
		for _, difference := range slices.Compact(differences) {
			reasons = append(reasons, fmt.Sprintf("%s is released, and subscribers rely on it: %s. Take it back, and give the change a new event type or version (docs/adr/0007)", name, difference))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(current)) {
		contract, _ := os.ReadFile(filepath.Join(dir, name))
		released, _ := os.ReadFile(filepath.Join(dir, "released", name))
		if !broken[name] && !bytes.Equal(contract, released) {
			reasons = append(reasons, fmt.Sprintf("%s is not released as it is. When it is what subscribers shall have: cp contracts/%[1]s contracts/released/", name))
		}
	}
	return reasons
}

// incompatible names each difference that a subscriber could notice. It has to hold both ways. Subscribers of the released schema get
// new events, and subscribers of the new schema get old events, from an archive, or from the table by a replay. So released members stay as
// they are, and added members are optional. Only descriptions may change.
func incompatible(path string, released, current schema) (differences []string) {
	at := "the event"
	if path != "" {
		at = path
	}
	differ := func(format string, args ...any) {
		differences = append(differences, at+" "+fmt.Sprintf(format, args...))
	}
	if current == nil {
		differ("is gone")
		return differences
	}
	keys := map[string]bool{}
	for _, s := range []schema{released, current} {
		for key := range s {
			keys[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, is := released[key], current[key]
		switch key {
		case "title", "description":
		case "properties":
			properties, _ := is.(schema)
			before, _ := was.(schema)
			for _, name := range slices.Sorted(maps.Keys(before)) {
				property, _ := properties[name].(schema)
				differences = append(differences, incompatible(member(path, name), before[name].(schema), property)...)
			}
		case "required":
			before, now := set(was), set(is)
			for _, name := range before {
				if !slices.Contains(now, name) {
					differ("no longer requires %s", name)
				}
			}
			for _, name := range now {
				if !slices.Contains(before, name) {
					differ("now requires %s, which old events may lack", name)
				}
			}
		case "items":
			items, _ := is.(schema)
			before, _ := was.(schema)
			differences = append(differences, incompatible(path+"[]", before, items)...)
		case "type", "enum":
			if before, now := set(was), set(is); !slices.Equal(before, now) {
				differ("had %s %v, and has %v", key, before, now)
			}
		default:
			if !reflect.DeepEqual(was, is) {
				differ("had %s %v, and has %v", key, was, is)
			}
		}
	}
	return differences
}

// history returns all committed versions of dir/released, by file name. In a shallow clone it is short, and without git empty.
func history(t testing.TB, dir string) map[string][]schema {
	t.Helper()
	versions := map[string][]schema{}
	commits, err := git(t, dir, "log", "--format=%H", "--", "released")
	if err != nil {
		t.Logf("released contracts are compared with their copies alone, without git: %v", err)
		return versions
	}
	for commit := range strings.FieldsSeq(commits) {
		files, err := git(t, dir, "ls-tree", "--name-only", commit, "released/")
		require.NoError(t, err)
		for file := range strings.FieldsSeq(files) {
			content, err := git(t, dir, "show", commit+":./"+file)
			require.NoError(t, err)
			versions[filepath.Base(file)] = append(versions[filepath.Base(file)], parse(t, []byte(content)))
		}
	}
	return versions
}

func git(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	// The checkout may belong to another user.
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*", "-C", dir}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(output), nil
}
