// Package outboxctl is the operator's tool for the path. It shows where an event is and whether all events arrived, and
// sends events again that did not. Its program is in cmd/outboxctl.
//
// Every command prints text, or with --json one JSON object. Every command that changes something has --dry-run.
package outboxctl

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// command is one of the program's verbs.
type command struct {
	name, arguments, summary string
	run                      func(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error
}

var commands = []command{
	{"where", "<event id, aggregate id, trace id or traceparent>", "where an event is, or each of an aggregate or a trace: one line per hop", runWhere},
	{"audit", "", "committed rows against what reached the bus", runAudit},
	{"redrive", "list | show <id> | <id> | --reason R | --all", "send parked events again", runRedrive},
	{"replay", "", "send events again from the table", runReplay},
	{"purge", "", "delete published rows that are old enough", runPurge},
	{"copy-slot", "--from <slot>", "make walrelay's slot at the position of another relay's", runCopySlot},
	{"doctor", "", "what is wrong with this set-up", runDoctor},
}

// program is what every command gets.
type program struct {
	load          func(ctx context.Context, envFile string) (*Setup, error)
	out, progress io.Writer
	envFile       string
	json          bool
}

func (p *program) setup(ctx context.Context) (*Setup, error) { return p.load(ctx, p.envFile) }

// UsageError is wrong use. The exit code is 2.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// errFound says that the command did its work and has printed a problem. The exit code is 1, and no message follows.
var errFound = errors.New("something is wrong")

// Run runs the command that args name, and returns the program's exit code. That is 0, or 1 when something is wrong with
// the events or with the work, or 2 on wrong use. load returns the set-up. It gets the value of --env-file, and is called
// after the arguments have proved right. Its UsageError is wrong use, too. Findings go to out. Progress and errors go to
// progress.
func Run(ctx context.Context, args []string, load func(ctx context.Context, envFile string) (*Setup, error), out, progress io.Writer) int {
	err := dispatch(ctx, args, &program{load: load, out: out, progress: progress})
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	code := 1
	var wrong UsageError
	if errors.As(err, &wrong) {
		code = 2
	}
	if !errors.Is(err, errFound) {
		// One line, because a script shows the last one.
		fmt.Fprintln(progress, "outboxctl:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return code
}

func dispatch(ctx context.Context, args []string, p *program) error {
	if len(args) == 0 {
		return UsageError("which command? outboxctl help lists them")
	}
	if isHelp(args[0]) && len(args) == 2 { // outboxctl help where
		args = []string{args[1], "help"}
	}
	switch {
	case isHelp(args[0]):
		_, err := fmt.Fprintln(p.out, usage())
		return err
	case isVersion(args[0]):
		_, err := fmt.Fprintln(p.out, version())
		return err
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		if len(args) == 2 && isVersion(args[1]) {
			_, err := fmt.Fprintln(p.out, version())
			return err
		}
		flags := flag.NewFlagSet("outboxctl "+c.name, flag.ContinueOnError)
		flags.SetOutput(io.Discard) // the flag package would print every flag after an error
		flags.Usage = func() {
			words := slices.DeleteFunc([]string{"usage: outboxctl", c.name, c.arguments, "[flags]"}, func(word string) bool { return word == "" })
			fmt.Fprintf(p.out, "%s\n%s\n", strings.Join(words, " "), c.summary)
			flags.SetOutput(p.out)
			flags.PrintDefaults()
		}
		flags.StringVar(&p.envFile, "env-file", "", "`file` with the set-up's variables; without it the environment, or .data/outboxctl.env")
		flags.BoolVar(&p.json, "json", false, "print one JSON object")
		if len(args) == 2 && args[1] == "help" {
			args[1] = "--help"
		}
		return c.run(ctx, p, flags, args[1:])
	}
	return UsageError(fmt.Sprintf("unknown command %q: outboxctl help lists them", args[0]))
}

func isHelp(arg string) bool { return slices.Contains([]string{"help", "-h", "-help", "--help"}, arg) }

func isVersion(arg string) bool {
	return slices.Contains([]string{"version", "-version", "--version"}, arg)
}

// version returns what Go wrote into the program. That is the commit that it was built from, if Go knew it, and the
// release of Go.
func version() string {
	text := "outboxctl"
	if build, ok := debug.ReadBuildInfo(); ok {
		text += " " + build.Main.Version + " " + build.GoVersion
	}
	return text
}

func usage() string {
	var b strings.Builder
	b.WriteString("usage: outboxctl <command> [flags]; outboxctl help <command> tells more\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.summary)
	}
	b.WriteString("  help     this list, or a command's flags\n  version  the commit that this program was built from")
	return b.String()
}

// parse reads flags wherever they stand and returns the other arguments.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	usage := flags.Usage
	for {
		flags.Usage = func() {} // it would be called after an error, too
		err := flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			usage()
			return nil, err
		}
		if err != nil {
			return nil, UsageError(fmt.Sprintf("%s: %v; see %s -h", strings.TrimPrefix(flags.Name(), "outboxctl "), err, flags.Name()))
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// timeFlag reads a point in time, the same for every command.
func timeFlag(to *time.Time) func(string) error {
	return func(s string) (err error) {
		if *to, err = time.Parse(time.RFC3339, s); err != nil {
			return errors.New("write a time as 2026-03-01T12:00:00Z")
		}
		*to = to.UTC()
		return nil
	}
}

// report is what a command found or did. It prints itself as text. Its JSON is that of the type.
type report interface {
	text(w io.Writer)
}

func (p *program) print(r report) error {
	if !p.json {
		r.text(p.out)
		return nil
	}
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
