package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// followed is a page that a test of its own follows step by step. Its fences are changes to files,
// not excerpts of them.
const followed = "docs/make-it-yours.md"

func TestExcerpts(t *testing.T) {
	t.Parallel()
	check(t, wrongExcerpts)
}

func wrongExcerpts(p page) (problems []string) {
	if p.path == followed {
		return nil
	}
	for _, f := range p.fences {
		name := f.file()
		if name == "" {
			if !slices.Contains([]string{"", "logs", "mermaid", "sh", "sql"}, f.language()) {
				problems = append(problems, p.problem(f.line, "a fence of %s without file=: excerpts are cut from a file", f.language()))
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			problems = append(problems, p.problem(f.line, "excerpt of %s: no such file", name))
			continue
		}
		if at, why := cutFrom(strings.Split(string(content), "\n"), f.lines); why != "" {
			problems = append(problems, p.problem(f.line+1+at, "excerpt of %s: %s", name, why))
		}
	}
	return problems
}

// cutFrom reports whether the excerpt's chunks stand in the file, in their order and with one common indentation taken away. If not, at is
// the line of the excerpt up to which they do.
func cutFrom(file, excerpt []string) (at int, why string) {
	chunks := split(excerpt)
	if len(chunks) == 0 {
		return 0, "it is empty"
	}
	tried := map[string]bool{}
	first := chunks[0].lines[0]
	for _, line := range file {
		indent, ok := strings.CutSuffix(line, first)
		if !ok || strings.TrimSpace(indent) != "" || tried[indent] {
			continue
		}
		tried[indent] = true
		reached, complete := follow(file, chunks, indent)
		if complete {
			return 0, ""
		}
		at = max(at, reached)
	}
	return at, fmt.Sprintf("no longer there, or not in this place: %q", strings.TrimSpace(excerpt[max(at, chunks[0].at)]))
}

// follow looks for each chunk behind the one before it, and returns the furthest line of the excerpt that it did not find.
func follow(file []string, chunks []chunk, indent string) (reached int, complete bool) {
	from := 0
	for _, c := range chunks {
		best, found := 0, false
		for start := from; start < len(file) && !found; start++ {
			n := 0
			for n < len(c.lines) && start+n < len(file) && same(file[start+n], indent, c.lines[n]) {
				n++
			}
			if best = max(best, n); n == len(c.lines) {
				found, from = true, start+n
			}
		}
		if !found {
			return c.at + best, false
		}
	}
	return 0, true
}

func same(line, indent, excerpt string) bool {
	return line == indent+excerpt || strings.TrimSpace(line) == "" && strings.TrimSpace(excerpt) == ""
}

// chunk is what stands between two "// ...".
type chunk struct {
	at    int // line of the excerpt, from 0
	lines []string
}

func split(excerpt []string) (chunks []chunk) {
	open := false
	for i, line := range excerpt {
		switch strings.TrimSpace(line) {
		case "// ...", "-- ...", "# ...":
			open = false
			continue
		case "":
			if !open {
				continue // around a left-out part, empty lines are for the eye
			}
		}
		if !open {
			chunks, open = append(chunks, chunk{at: i}), true
		}
		last := &chunks[len(chunks)-1]
		last.lines = append(last.lines, line)
	}
	for i, c := range chunks {
		for len(c.lines) > 0 && strings.TrimSpace(c.lines[len(c.lines)-1]) == "" {
			c.lines = c.lines[:len(c.lines)-1]
		}
		chunks[i] = c
	}
	return chunks
}
