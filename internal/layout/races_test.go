package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// withoutRace are the packages that share memory between goroutines, and whose own tests still run
// without the race detector.
var withoutRace = map[string]string{
	"lab":           "its tests run programs",
	"lab/judge":     "lab/view and lab/local use its tallies from many goroutines",
	"lab/chaos":     "its tests are of what it draws and writes",
	"lab/lambdarun": "infra's tests run programs by it",
}

// `make test` gives the race detector only to the packages of WITH_RACE.
func TestWhatSharesMemoryIsTestedForRaces(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	variable := regexp.MustCompile(`(?m)^WITH_RACE := ((?:.*\\\n)*.*)$`).FindSubmatch(makefile)
	require.NotNil(t, variable)
	var with []string
	for _, folder := range strings.Fields(strings.ReplaceAll(string(variable[1]), "\\\n", " ")) {
		folder = strings.TrimPrefix(folder, "./")
		with = append(with, strings.TrimSuffix(folder, "/..."))
		if below, ok := strings.CutSuffix(folder, "..."); ok {
			with = append(with, below)
		}
	}
	shares := regexp.MustCompile(`(?m)^\s*go [a-z]|\.Go\(|\bsync\.|\batomic\.`)
	excepted := map[string]string{}
	for _, p := range list(t) {
		own := strings.TrimPrefix(p.ImportPath, module)
		tests, err := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		require.NoError(t, err)
		if len(tests) == 0 || hasAny(own, with...) {
			continue
		}
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			if found := shares.Find(source); found != nil {
				require.Contains(t, withoutRace, own, "%s has %q: put it into the Makefile's WITH_RACE", file, found)
				excepted[own] = withoutRace[own]
			}
		}
	}
	require.Equal(t, withoutRace, excepted, "an exception that is none")
}
