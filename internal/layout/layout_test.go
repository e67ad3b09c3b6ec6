// Package layout keeps the dependency rule: mains -> handlers, walrelay, migrate -> outbox -> dbgen. What is generated (dbgen,
// contracts/eventtypes) imports nothing of the module. The path, which teams
// copy, knows nothing of what stands around it.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "rds-outbox-demo/"

type goPackage struct {
	ImportPath, Name, Dir string
	GoFiles, Imports      []string
}

// allowed says, by longest prefix, which packages of the module a package may import.
var allowed = map[string][]string{
	"dbgen":          {},
	"sql/migrations": {},
	"contracts":      {},
	"outbox":         {"dbgen"},
	"handlers/":      {"contracts/eventtypes", "outbox", "dbgen", "internal/"},
	// carstats is a subscriber, so it is after the path.
	"handlers/carstats": {"contracts/eventtypes", "inbox", "dbgen", "internal/"},
	"walrelay":          {"outbox", "dbgen", "internal/"},
	"migrate":           {"sql/migrations", "outbox", "dbgen", "internal/"},
	"inbox":             {"outbox", "dbgen", "internal/sabotage"},
	"outboxctl":         {"outbox", "dbgen", "handlers/", "migrate", "internal/"},
	"infra/bill":        {},
	"infra/sbom":        {"infra/bill"},
	"infra/gobuild":     {},
	// To be copied into a service or a subscriber. Nothing else may import one.
	"examples/": {"outbox", "inbox", "dbgen"},
	"internal/": {"migrate", "sql/migrations", "internal/pgsession", "internal/sabotage"},
	"lab":       {"contracts", "dbgen", "handlers/", "inbox", "internal/", "lab/", "migrate", "outbox", "outboxctl", "sql/migrations", "walrelay"},
	// Judges that shared code with what they judge would share its mistakes. It holds for Judge, Tally and register.
	"lab/judge":  {"lab/awslocal", "lab/judge", "lab/domain"},
	"lab/domain": {"dbgen"}, // only statements does, which the judge does not read
}

func TestDependencyRule(t *testing.T) {
	t.Parallel()
	packages := list(t)
	require.Greater(t, len(packages), 8, "go list found the module")
	for _, p := range packages {
		own := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			path, ours := strings.CutPrefix(imported, module)
			switch {
			case !ours:
				require.False(t, own == "outbox" && strings.Contains(imported, "aws"), "outbox imports %s: it must not know AWS", imported)
			case p.Name == "main":
				require.False(t, hasAny(path, "examples") || onPath(own) && hasAny(path, "inbox", "outboxctl", "lab"), "%s imports %s", own, path)
			default:
				require.True(t, hasAny(path, rule(t, own)...), "%s imports %s", own, path)
			}
		}
	}
}

var readsEnvironment = regexp.MustCompile(`\bos\.(Getenv|LookupEnv|Environ|ExpandEnv)\(`)

// testHelpers read from the environment which test server there is, and whether the test runs in CI.
var testHelpers = []string{module + "internal/pgtest", module + "lab/labtest", module + "lab/postgres/postgrestest"}

func TestOnlyMainsReadTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.Name == "main" || slices.Contains(testHelpers, p.ImportPath) {
			continue
		}
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			require.False(t, readsEnvironment.Match(source), "%s/%s reads the environment", p.ImportPath, file)
		}
	}
}

// queues has the files that queue statements with arguments by their place, which no compiler compares with their parameters.
var queues = map[string]string{
	"outbox/batch.go":  "gets them from dbgen's methods",
	"lab/view/poll.go": "reads only",
}

// Every write goes through dbgen's methods, also those that leave together, and each parameter has a name. So a column that changes its
// place in the statement changes no caller, and one that changes its name or its type does not compile.
func TestWritesAreTyped(t *testing.T) {
	t.Parallel()
	byPlace := regexp.MustCompile(`\.Queue\(`)
	found := map[string]string{}
	for _, p := range list(t) {
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			if name := strings.TrimPrefix(p.ImportPath, module) + "/" + file; byPlace.Match(source) {
				found[name] = queues[name]
			}
		}
	}
	require.Equal(t, queues, found, "use dbgen's methods with an outbox.Batch")

	files, err := filepath.Glob("../../sql/queries/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		query, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotRegexp(t, `\$\d`, string(query), "%s: write @make, not $1", file)
	}
}

// pgx's error repeats a malformed connection string, with the password. pgsession.ParseConfig does not.
func TestConnectionStringsAreParsedInOnePlace(t *testing.T) {
	t.Parallel()
	parses := regexp.MustCompile(`\b(pgx|pgxpool|pgconn)\.ParseConfig\(`)
	var found []string
	for _, p := range list(t) {
		own := strings.TrimPrefix(p.ImportPath, module)
		if slices.Contains(testHelpers, p.ImportPath) {
			continue // theirs are of servers that they started
		}
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			if parses.Match(source) {
				found = append(found, own+"/"+file)
			}
		}
	}
	require.Equal(t, []string{"internal/pgsession/parse.go"}, found)
}

// Lines of another form in a function's output could be a client's. See package lambdalog.
func TestFunctionsWriteByOneLogger(t *testing.T) {
	t.Parallel()
	writes := regexp.MustCompile(`os\.Std(out|err)\b|\bfmt\.Print|\bprintln\(|slog\.New\(|LoadDefaultConfig\(ctx\)`)
	functions := 0
	for _, p := range list(t) {
		own := strings.TrimPrefix(p.ImportPath, module)
		main := p.Name == "main" && strings.HasSuffix(own, "/lambda")
		if main {
			functions++
			require.Contains(t, p.Imports, module+"internal/lambdalog")
		}
		if !main && !strings.HasPrefix(own, "handlers/") {
			continue
		}
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			require.False(t, writes.Match(source), "%s/%s writes to the output by itself", own, file)
		}
	}
	require.Equal(t, 6, functions)
}

func onPath(own string) bool {
	return hasAny(own, "handlers/", "walrelay", "migrate", "outbox", "dbgen")
}

// hasAny reports whether path is one of the packages, or below one that ends in a slash.
func hasAny(path string, packages ...string) bool {
	for _, p := range packages {
		if path == strings.TrimSuffix(p, "/") || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

func rule(t *testing.T, own string) []string {
	t.Helper()
	best := ""
	for prefix := range allowed {
		if hasAny(own, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	require.NotEmpty(t, best, "package %s has no rule: add it to allowed", own)
	return allowed[best]
}

func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}
