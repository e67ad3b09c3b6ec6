package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// names are what a page may call, which are the Makefile's targets and programs, and outboxctl's
// commands.
type names struct{ targets, programs, verbs []string }

func known(t *testing.T) (n names) {
	t.Helper()
	makefile := read(t, "Makefile")
	for _, rule := range regexp.MustCompile(`(?m)^([a-z][a-z -]*):`).FindAllStringSubmatch(makefile, -1) {
		n.targets = append(n.targets, strings.Fields(rule[1])...)
	}
	for _, rule := range regexp.MustCompile(`(?m)^(bin/[a-z/-]+):`).FindAllStringSubmatch(makefile, -1) {
		n.programs = append(n.programs, rule[1])
	}
	n.verbs = []string{"help", "version"}
	for _, verb := range regexp.MustCompile(`(?m)^\t\{"([a-z-]+)", "`).FindAllStringSubmatch(read(t, "outboxctl/outboxctl.go"), -1) {
		n.verbs = append(n.verbs, verb[1])
	}
	require.Subset(t, n.targets, []string{"help", "dev", "relay-start", "migrate", "events", "test"})
	require.Subset(t, n.programs, []string{"bin/lab", "bin/outboxctl", "bin/chaos/walrelay"})
	require.Subset(t, n.verbs, []string{"where", "doctor"})
	return n
}

func TestNames(t *testing.T) {
	t.Parallel()
	n := known(t)
	check(t, func(p page) []string { return unknownNames(p, n) })
}

// `go test -bench` says nothing of a name that no benchmark has, so the bound of a renamed benchmark would not be checked any more.
func TestBenchmarksOfTheMakefileExist(t *testing.T) {
	t.Parallel()
	hops := regexp.MustCompile(`(?m)^BENCH_(\w+) =.* -bench '\^Benchmark\(?([\w|]+)\)?\$\$' (.+)$`).FindAllStringSubmatch(read(t, "Makefile"), -1)
	require.Len(t, hops, 4)
	for _, hop := range hops {
		var source strings.Builder
		for folder := range strings.FieldsSeq(hop[3]) {
			files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
			require.NoError(t, err)
			for _, file := range files {
				content, err := os.ReadFile(file)
				require.NoError(t, err)
				source.Write(content)
			}
		}
		for name := range strings.SplitSeq(hop[2], "|") {
			require.Contains(t, source.String(), "\nfunc Benchmark"+name+"(", "make bench HOP=%s", hop[1])
		}
	}
}

func unknownNames(p page, n names) (problems []string) {
	look := func(line int, text string) {
		for _, target := range makeTargets(text) {
			if !slices.Contains(n.targets, target) {
				problems = append(problems, p.problem(line, "make %s: the Makefile has no such target", target))
			}
		}
		for _, found := range program.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(n.programs, found[1]) {
				problems = append(problems, p.problem(line, "%s: the Makefile builds no such program", found[1]))
			}
		}
		for _, found := range verb.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(n.verbs, found[1]) {
				problems = append(problems, p.problem(line, "outboxctl %s: there is no such command", found[1]))
			}
		}
	}
	for _, s := range p.spans() {
		look(s.line, s.text)
	}
	for _, f := range p.fences {
		switch {
		case f.file() != "":
		case f.language() == "sh":
			for _, c := range f.commands() {
				look(c.line, uncommented(c.text))
			}
		case f.language() == "":
			for i, line := range f.lines {
				if typed, ok := strings.CutPrefix(line, "$ "); ok {
					look(f.line+1+i, typed)
				}
			}
		}
	}
	return problems
}

var (
	program = regexp.MustCompile(`(?:^|[^\w./-]|[^\w.]\./)(bin/[a-z][a-z/-]*)`)
	verb    = regexp.MustCompile(`(?:^|[\s(;&|/])outboxctl ([a-z][a-z-]*)`)
	calls   = regexp.MustCompile(`(?:^|[\s;&|(])make((?: +[^\s;&|()<>]+)+)`)
	quotes  = regexp.MustCompile(`=("[^"]*"|'[^']*')`)
	remark  = regexp.MustCompile(`(^|\s)#.*$`)
)

// makeTargets returns the targets that a shell command makes, without its options, variables and
// placeholders.
func makeTargets(text string) (targets []string) {
	for _, call := range calls.FindAllStringSubmatch(quotes.ReplaceAllString(text, "=x"), -1) {
		for word := range strings.FieldsSeq(call[1]) {
			if word[0] >= 'a' && word[0] <= 'z' && !strings.Contains(word, "=") {
				targets = append(targets, word)
			}
		}
	}
	return targets
}

func uncommented(command string) string {
	return strings.TrimSpace(remark.ReplaceAllString(command, ""))
}
