package docs_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFencesSayWhoRunsThem(t *testing.T) {
	t.Parallel()
	check(t, unclearFences)
}

var (
	notRun = regexp.MustCompile(`(?i)\bnot\s+(been\s+)?run\b|\bby\s+hand\b`)
	// commandLine is what must not stand in a fence or an indented block where no check sees it.
	commandLine = regexp.MustCompile(`^(\w+=\S* )*(make|aws|curl|npx|npm|pip|git|psql|python3|docker|go (run|build|test|tool|install)|bin/[a-z]+|scripts/\S+\.sh)( |$)`)
)

func unclearFences(p page) (problems []string) {
	for _, f := range p.fences {
		switch f.language() {
		case "sh", "sql":
			class := ""
			for _, word := range f.info[1:] {
				if !strings.HasPrefix(word, "file=") {
					class += word
				}
			}
			switch {
			case f.file() != "":
			case class == "not-run":
				if !notRun.MatchString(p.beside(f)) {
					problems = append(problems, p.problem(f.line, `not-run, and the text before it says neither "not run" nor "by hand"`))
				}
			case class != "" && (class != "rehearsed" || f.language() != "sh"):
				problems = append(problems, p.problem(f.line, "a fence of commands is sh, sh rehearsed or sh not-run, not %q", strings.Join(f.info, " ")))
			}
		case "":
			for i, line := range f.lines {
				if commandLine.MatchString(line) {
					problems = append(problems, p.problem(f.line+1+i, "a command in a fence for outputs: say sh"))
				}
			}
		}
	}
	for i, line := range p.prose {
		if indented, ok := strings.CutPrefix(line, "    "); ok && commandLine.MatchString(indented) {
			problems = append(problems, p.problem(i+1, "a command in an indented block: put it into a fence"))
		}
	}
	return problems
}

// beside is the paragraph before the fence, and the fence's own comments. What comes after it comes too late.
func (p page) beside(f fence) string {
	text := ""
	for first, after := range p.paragraphs() {
		if first < f.line {
			text = strings.Join(p.prose[first:after], "\n")
		}
	}
	return text + "\n" + strings.Join(f.lines, "\n")
}

func TestRehearsedCommands(t *testing.T) {
	t.Parallel()
	run, all := rehearsal(t)
	for _, p := range pages(t) {
		for _, f := range p.fences {
			if f.language() != "sh" || !f.has("rehearsed") {
				continue
			}
			for _, c := range f.commands() {
				require.Empty(t, unrehearsed(t, uncommented(c.text), run, all), p.problem(c.line, "%s", c.text))
			}
		}
	}
}

var script = regexp.MustCompile(`scripts/[\w-]+\.sh`)

// rehearsal returns run.sh, and run.sh with every script that it runs; without comments and messages that only name one.
func rehearsal(t *testing.T) (run, all string) {
	t.Helper()
	code := func(path string) string {
		return regexp.MustCompile(`(?m)^\s*#.*$|^.*\b(usage=|die "|say ").*$`).ReplaceAllString(read(t, path), "")
	}
	run = code("lab/rehearsal/run.sh")
	all = run
	for seen := []string{}; ; {
		next := slices.DeleteFunc(script.FindAllString(all, -1), func(path string) bool { return slices.Contains(seen, path) })
		if len(next) == 0 {
			return run, all
		}
		seen = append(seen, next[0])
		all += "\n" + code(next[0])
	}
}

// unrehearsed says what of a command the rehearsal does not do. A make target is the script that it calls; run.sh must call that script and
// know each of its further arguments. An AWS or osls command must stand there, or in a script that runs there.
func unrehearsed(t *testing.T, command, run, all string) string {
	t.Helper()
	var arguments []string
	if len(makeTargets(command)) > 0 {
		dry := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "make", "make -n", 1))
		dry.Dir, dry.Env = root, environment()
		printed, err := dry.Output()
		require.NoError(t, err, command)
		for line := range strings.Lines(string(printed)) {
			if script.MatchString(line) && !strings.Contains(line, "echo") {
				command = strings.TrimSpace(line)
			}
		}
	}
	words := strings.Fields(command)
	switch {
	case script.MatchString(words[0]):
		if !strings.Contains(run, words[0]) {
			return "lab/rehearsal/run.sh does not run " + words[0]
		}
		arguments = words[1:]
	case len(words) > 2 && words[0] == "aws":
		if !regexp.MustCompile(`\b(aws|ask) ` + regexp.QuoteMeta(words[1]+" "+words[2]) + `\b`).MatchString(all) {
			return "nothing in the rehearsal calls aws " + words[1] + " " + words[2]
		}
	case len(words) > 2 && words[0] == "npx" && words[1] == "osls":
		if !strings.Contains(all, "osls "+words[2]) {
			return "nothing in the rehearsal calls osls " + words[2]
		}
	default:
		return "the rehearsal cannot be asked about this: use sh not-run"
	}
	for _, word := range arguments {
		region := regexp.MustCompile(`^[a-z]+-[a-z]+-\d$`).MatchString(word)
		if word == "dev" || word == "prod" || region {
			continue
		}
		if !regexp.MustCompile(`(^|[\s"])` + regexp.QuoteMeta(word) + `($|[\s"])`).MatchString(run) {
			return "lab/rehearsal/run.sh does not run " + words[0] + " with " + word
		}
	}
	return ""
}

// environment is ours without what would lead a command elsewhere.
func environment(more ...string) (env []string) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "MAKE"), strings.HasPrefix(name, "DB_"),
			slices.Contains([]string{"MFLAGS", "DATABASE_URL", "TEST_DATABASE_URL", "PORT", "FRESH", "STAGE", "REGION", "CMD", "STREAM_NAME"}, name):
		default:
			env = append(env, entry)
		}
	}
	return append(env, more...)
}

func TestPagesWithAWSCommandsSayThatTheyWereNotRun(t *testing.T) {
	t.Parallel()
	check(t, silentAboutAWS)
}

var (
	awsCommand = regexp.MustCompile(`^aws [a-z0-9]+ [a-z-]+`)
	saysNotRun = regexp.MustCompile(`(?i)\brun\s+(on\s+AWS\s+)?by\s+us\b|\bnever\s+ran\s+on\s+AWS\b|\bnot\s+run\b`)
)

// silentAboutAWS is about AWS commands in the text, for which a word somewhere on the page is enough.
func silentAboutAWS(p page) (problems []string) {
	if saysNotRun.MatchString(strings.Join(p.prose, "\n")) {
		return nil
	}
	for _, s := range p.spans() {
		if awsCommand.MatchString(s.text) {
			problems = append(problems, p.problem(s.line, "%s: the page does not say that it was not run", s.text))
		}
	}
	return problems
}
