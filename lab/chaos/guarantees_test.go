package chaos

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/lab/labtest"
)

var codeWord = regexp.MustCompile("^`([a-z-]+)`$")

// docs/guarantees.md names a test, and where there is one a sabotage, for each promise. What it names exists, and no sabotage is left out.
func TestGuaranteesNameTestsAndSabotagesThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/guarantees.md")
	require.NoError(t, err)
	promised, _, ok := strings.Cut(string(page), "## Not promised")
	require.True(t, ok)

	promises := 0
	named := map[string]bool{}
	for line := range strings.Lines(promised) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Contains(line, "| promise |") || strings.HasPrefix(line, "|---") {
			continue
		}
		promises++
		require.NotEmpty(t, labtest.NamedTests(cells[3]), "a promise without a test: %s", line)
		rule := strings.TrimSpace(cells[4])
		if rule == "–" {
			continue
		}
		match := codeWord.FindStringSubmatch(rule)
		require.NotNil(t, match, "%q is no sabotage and no dash", rule)
		_, known := trialFor(match[1])
		known = known || slices.Contains(Simulated, sabotage.Rule(match[1]))
		require.True(t, known, "no sabotage %s", match[1])
		named[match[1]] = true
	}
	require.Greater(t, promises, 12)
	for _, s := range Sabotages {
		require.True(t, named[string(s.Name)], "sabotage %s is on no row", s.Name)
	}
	for _, rule := range Simulated {
		require.True(t, named[string(rule)], "sabotage %s is on no row", rule)
	}

	labtest.RequireNamedTests(t, "docs/guarantees.md")
}

// docs/chaos.md says who catches which sabotage. A run of each sabotage holds the path against the same list.
func TestPageSaysWhoCatchesEachSabotage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/chaos.md")
	require.NoError(t, err)
	for _, s := range Sabotages {
		second := "yes"
		if s.unseen != "" {
			second = "no: " + s.unseen
		}
		require.Contains(t, string(page), fmt.Sprintf("\n| `%s` | `%s` | `%s` | %s |\n", s.Name, s.trial, strings.Join(s.breaks, "`, `"), second))
	}
	require.Equal(t, len(Sabotages), strings.Count(string(page), "| yes |\n")+strings.Count(string(page), " | no: "))
}
