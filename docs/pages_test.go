// Package docs keeps the documentation true. Links and anchors lead somewhere, what is named
// exists, excerpts are cut from the code,
// and every command is run, by a test here, by .ci/run or by the rehearsal, or says that it is not.
//
// A fence says what it is in its info string:
//
//	sh                     local commands, one per line; run literally
//	sh rehearsed           commands for AWS; lab/rehearsal/run.sh runs them
//	sh not-run             neither, and the text beside it says so
//	sql, sql not-run       statements for the local database
//	<language> file=PATH   lines of that file; a line "// ...", "-- ..." or "# ..." stands for what is left out
//	(none), mermaid, logs  what a program prints, a picture, a query for CloudWatch Logs Insights
package docs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = ".."

// notOurs are folders in which nothing of ours is kept.
var notOurs = []string{".git", ".data", ".cache", ".serverless", "node_modules", "bin"}

// page is one Markdown file.
type page struct {
	path   string   // from the root
	prose  []string // its lines; those of fences are empty
	fences []fence
}

// fence is a code block between lines of backticks.
type fence struct {
	line  int // of its first backticks, from 1
	info  []string
	lines []string // without the fence's own indentation
}

func (f fence) language() string {
	if len(f.info) == 0 || strings.Contains(f.info[0], "=") {
		return ""
	}
	return f.info[0]
}

func (f fence) has(word string) bool { return slices.Contains(f.info, word) }

func (f fence) file() string {
	for _, word := range f.info {
		if file, ok := strings.CutPrefix(word, "file="); ok {
			return file
		}
	}
	return ""
}

// command is a line of a fence, its continuations joined.
type command struct {
	line int
	text string
}

func (f fence) commands() (all []command) {
	continued := false
	for i, line := range f.lines {
		text, more := strings.CutSuffix(line, `\`)
		switch trimmed := strings.TrimSpace(text); {
		case continued:
			all[len(all)-1].text += text
		case trimmed != "" && trimmed[0] != '#':
			all = append(all, command{f.line + 1 + i, text})
		default:
			more = false
		}
		continued = more
	}
	return all
}

var fenceStart = regexp.MustCompile("^( *)(```+|~~~+)\\s*([^`]*)$")

func parse(path, content string) page {
	p := page{path: path}
	end, indent, inside := "", "", false
	for i, line := range strings.Split(content, "\n") {
		switch start := fenceStart.FindStringSubmatch(line); {
		case inside && strings.HasPrefix(strings.TrimSpace(line), end) && strings.Trim(line, " `~") == "":
			inside = false
		case inside:
			f := &p.fences[len(p.fences)-1]
			f.lines = append(f.lines, strings.TrimPrefix(line, indent))
		case start != nil:
			inside, indent, end = true, start[1], start[2]
			p.fences = append(p.fences, fence{line: i + 1, info: strings.Fields(start[3])})
		default:
			p.prose = append(p.prose, line)
			continue
		}
		p.prose = append(p.prose, "")
	}
	return p
}

// span is text between backticks in the prose, perhaps over a line's end.
type span struct {
	line int
	text string
}

var backticks = regexp.MustCompile("`+")

func (p page) spans() (all []span) {
	for first, after := range p.paragraphs() {
		text := strings.Join(p.prose[first:after], "\n")
		for at := 0; ; {
			open := backticks.FindStringIndex(text[at:])
			if open == nil {
				break
			}
			mark, from := text[at+open[0]:at+open[1]], at+open[1]
			at = from
			for _, end := range backticks.FindAllStringIndex(text[from:], -1) {
				if text[from+end[0]:from+end[1]] == mark {
					line := first + 1 + strings.Count(text[:from], "\n")
					all = append(all, span{line, strings.Join(strings.Fields(text[from:from+end[0]]), " ")})
					at = from + end[1]
					break
				}
			}
		}
	}
	return all
}

// paragraphs yields where each begins and the line after its end.
func (p page) paragraphs() func(yield func(first, after int) bool) {
	return func(yield func(int, int) bool) {
		for first := 0; first < len(p.prose); {
			after := first
			for after < len(p.prose) && strings.TrimSpace(p.prose[after]) != "" {
				after++
			}
			if after > first && !yield(first, after) {
				return
			}
			first = after + 1
		}
	}
}

func pages(t *testing.T) (all []page) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // another test's, and gone
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notOurs, entry.Name()):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		own, err := filepath.Rel(root, path)
		all = append(all, parse(filepath.ToSlash(own), string(content)))
		return err
	}))
	require.Greater(t, len(all), 5, "found the pages")
	return all
}

// problem is "page:line: what".
func (p page) problem(line int, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", p.path, line, fmt.Sprintf(format, args...))
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(content)
}

// check runs one check over every page.
func check(t *testing.T, find func(page) []string) {
	t.Helper()
	var problems []string
	for _, p := range pages(t) {
		problems = append(problems, find(p)...)
	}
	require.Zero(t, len(problems), "\n%s", strings.Join(problems, "\n"))
}
