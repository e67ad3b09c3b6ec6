package labtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var testLink = regexp.MustCompile("\\[`((?:Test|Fuzz)[A-Za-z0-9]+)`\\]\\(([^)]+)\\)")

// NamedTests returns the tests that text links to, such as [`TestX`](x_test.go).
func NamedTests(text string) []string { return testLink.FindAllString(text, -1) }

// RequireNamedTests reports each link of a page, whose path is from the module's root, to a test that is not in the file it names.
func RequireNamedTests(t testing.TB, page string) {
	t.Helper()
	path := filepath.Join(Root(t), page)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, link := range testLink.FindAllStringSubmatch(string(text), -1) {
		source, err := os.ReadFile(filepath.Join(filepath.Dir(path), link[2]))
		require.NoError(t, err, "%s", link[0])
		require.Contains(t, string(source), "func "+link[1]+"(", "%s has no %s", link[2], link[1])
	}
}

// TableRows returns the rows of the Markdown tables in text with so many columns, without heads. Each has its cells.
func TableRows(text string, columns int) [][]string {
	var rows [][]string
	var head []string
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		switch {
		case len(cells) != columns+2:
			head = nil
		case head == nil:
			head = cells
		case !strings.HasPrefix(line, "|---"):
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells[1:columns+1])
		}
	}
	return rows
}
