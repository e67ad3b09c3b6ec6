//go:build yours

package docs_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ownFiles are the folders in which the members of an entity stand. docs/make-it-yours.md has a person change them there, and nowhere else.
var ownFiles = []string{"sql", "contracts", "handlers/parcelapi", "handlers/parcelstats", "lab/domain"}

// otherMembers makes that person's edits. A text, a number and a member that may be null get other
// names.
const otherMembers = `grep -rlE '\b(make|year|color|Make|Year|Color)s?\b' --exclude-dir=node_modules --exclude=package-lock.json --exclude='*.mjs' "$@" |
	xargs sed -E -i 's/\bmake(s?)\b([^(]|$)/brand\1\2/g; s/\bMake(s?)\b([^(]|$)/Brand\1\2/g; s/rapid\.Brand/rapid.Make/g
		s/\byear(s?)\b/season\1/g; s/\bYear(s?)\b([^(]|$)/Season\1\2/g; s/\bcolor\b/finish/g; s/\bColor\b/Finish/g'
	gofmt -w "$@"`

// importer is a module of somebody else that imports the copy from a module proxy. The proxy serves what the copy's git holds. The module
// cache is a new one, because a cached version never changes, and is filled from the one that is there. A module's zip has no other
// module in it, as the peers are.
const importer = `set -e
proxy=$PWD/../proxy cache=$(go env GOMODCACHE) upstream=$(go env GOPROXY)
versions=$proxy/$MODULE/@v
mkdir -p "$versions" ../importer
cp go.mod "$versions/v0.1.0.mod"
echo '{"Version":"v0.1.0"}' >"$versions/v0.1.0.info"
git --git-dir=../git archive --format=zip --prefix="$MODULE@v0.1.0/" --output="$versions/v0.1.0.zip" "$(git --git-dir=../git --work-tree=. write-tree)" . ':!lab/peers'
cd ../importer
export GOPROXY="file://$proxy,file://$cache/cache/download,$upstream" GONOSUMDB="$MODULE" GOMODCACHE="$PWD/../modules" GOFLAGS="$GOFLAGS -modcacherw"
cat >main.go <<EOF
package main

import (
	"$MODULE/inbox"
	"$MODULE/outbox"
)

var (
	_ = outbox.Append
	_ = inbox.Once
)

func main() {}
EOF
go mod init example.com/somebody/else
go get "$MODULE/inbox@v0.1.0" "$MODULE/outbox@v0.1.0"
go build -o importer .
./importer
`

// TestNew makes the copy of `make new` with an entity in place of the car, and gives the entity other members. It requires that both
// build, run and package, that the old names are gone, that another module can import it, and that nobody had
// to touch another file by hand.
func TestNew(t *testing.T) {
	checkout, err := filepath.Abs(root)
	require.NoError(t, err)
	const name = "rds-outbox-demo"
	if !strings.Contains(read(t, "scripts/new.sh"), "\nfrom="+name+"\n") {
		t.Skip("this tree is a copy, and a copy is not copied again")
	}
	dir := filepath.Join(t.TempDir(), "copy")
	run := func(dir, command string) (string, error) {
		defer func(began time.Time) { t.Logf("%s: %s", time.Since(began).Round(time.Millisecond), command) }(time.Now())
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
		cmd.Dir, cmd.Env = dir, environment()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		output, err := cmd.CombinedOutput()
		return string(output), err
	}
	// A module path with the old name in it shows that the two names do not mix.
	const module, service = "example.com/acme/rds-outbox-demo-orders", "acme-orders"
	const command = "make -s new MODULE=" + module + " SERVICE="
	for wrong, why := range map[string]string{
		command + "Orders":                             "SERVICE 'Orders': use up to 15 ",
		command + "sixteen-is-a-lot":                   "SERVICE 'sixteen-is-a-lot': use up to 15 ",
		command + "a--b":                               "SERVICE 'a--b': use up to 15 ",
		command + "orders ENTITY=Parcel":               "ENTITY 'Parcel': use up to 15 ",
		command + "orders ENTITY=sheep ENTITIES=sheep": "ENTITY 'sheep': name its plural",
		command + "orders DIR=docs":                    "docs is there already: nothing was changed",
		command + "orders DIR=docs/orders":             "docs/orders is inside this tree",
		"make -s new SERVICE=orders":                   "MODULE= is missing",
		"make -s new MODULE=orders SERVICE=orders":     "MODULE 'orders': use a Go module path",
	} {
		output, err := run(checkout, wrong)
		require.Error(t, err, wrong)
		require.Contains(t, output, "new: "+why, wrong)
	}
	output, err := run(checkout, command+service+" DIR="+dir+" ENTITY=parcel")
	require.NoError(t, err, output)
	require.Equal(t, "new: "+dir+" is service "+service+" in module "+module+", and parcels take the place of cars\n", output)

	car := regexp.MustCompile(`\b(?i:cars?)\b|_cars?|Cars?([A-Z_]|\b)|\bcar(s|Id|ID)\b|\bcar[A-Z]|carapi|carstats`)
	hashes := []string{"go.sum", "package-lock.json", "rds-ca.pem"}
	keeps := []string{"CHANGELOG.md", "LICENSE", "scripts/new.sh"}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		require.NotContains(t, notOurs, entry.Name())
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		own, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		if !slices.Contains(keeps, own) {
			require.NotContains(t, strings.ReplaceAll(string(content), module, ""), name, own)
			if !slices.Contains(hashes, filepath.Base(own)) && filepath.Ext(own) != ".png" {
				require.NotRegexp(t, car, own+" "+string(content), own)
			}
		}
		return nil
	}))

	for _, tools := range []string{"node_modules", ".cache"} {
		require.NoError(t, os.Symlink(filepath.Join(checkout, tools), filepath.Join(dir, tools)))
	}
	sqlc, err := filepath.Glob(filepath.Join(checkout, ".cache", "bin", "sqlc-*"))
	require.NoError(t, err)
	require.Len(t, sqlc, 1)
	const onAServer = "bin/lab with-postgres -throwaway -- "
	const git = "git --git-dir=../git --work-tree=. " // outside of the copy, whose tests would take it for the history of its contracts
	const generate = " generate && go run ./contracts/generate contracts"
	for _, command := range []string{
		"git init -q --bare ../git && " + git + "add -A",
		"MODULE=" + module + "\n" + importer,
		"set -- " + strings.Join(ownFiles, " ") + "\n" + otherMembers,
		// What is made of that. The second time the AsyncAPI document gets the new examples.
		sqlc[0] + generate + ` && test -z "$(gofmt -l .)" && go build -o bin/ ./lab ./walrelay/cmd/walrelay ./migrate/cmd/migrate ./outboxctl/cmd/outboxctl`,
		`cp contracts/*.v1.json contracts/released/ && UPDATE_GOLDEN=1 ` + onAServer + `go test -count=1 -run '^TestRecordFormat$' ./docs && ` + sqlc[0] + generate,
		"test -z \"$(" + git + "diff --name-only -- . ':!dbgen' ':!docs/record-format' ':!" + strings.Join(ownFiles, "' ':!") + "')\"",
		`go vet ./... && go vet -tags browser ./lab/view/browser`,
		`PARCELS=20 bin/lab demo`,
		onAServer + `go test -count=1 ./contracts ./handlers/parcelstats ./internal/dbuser ./internal/pgsession`,
		onAServer + `go test -count=1 -run '^Test((Create|Patch|Delete|List)Parcel.*|EventMatchesGoldenFile)$' ./handlers/parcelapi`,
		// The templates under the new names, and the scripts that ask for their stacks.
		onAServer + `go test -count=1 -run '^(TestFunctions|TestFunctionsAreBuiltForARM64|TestRoutes|TestParcelStatsZip|TestDeploy.*)$' ./infra ./scripts`,
	} {
		output, err := run(dir, command)
		require.NoError(t, err, "%s\n%s", command, output)
	}
	byHand, err := run(dir, git+"diff --name-only -- . ':!sql' ':!contracts' ':!handlers' ':!dbgen' ':!docs/record-format'")
	require.NoError(t, err, byHand)
	require.Equal(t, "lab/domain/domain.go\nlab/domain/statements/statements.go\n", byHand, "docs/make-it-yours.md names them")
}
