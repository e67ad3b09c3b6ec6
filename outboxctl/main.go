// Command outboxctl is the operator's program: where an event is, whether all of them arrived, and what to do about those that did
// not. It is the same program for a laptop and for AWS, and talks to both through the AWS SDK.
//
// In: a set-up from the environment or a file of it (setup.go). Out: text, or with --json one JSON object. Every command that
// changes something has --dry-run. Exit code 0; 1 when something is wrong, with the events or with the work; 2 on wrong use.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// command is one of the program's verbs.
type command struct {
	name, arguments, summary string
	run                      func(ctx context.Context, p *program, flags *flag.FlagSet, args []string) error
}

var commands = []command{
	{"where", "<event-id or trace-id>", "where an event is, or each of a trace: one line per hop", runWhere},
	{"audit", "", "committed rows against what reached the bus", runAudit},
	{"redrive", "list | show <event-id> | <event-id> | --reason R | --all", "send parked events again", runRedrive},
	{"replay", "", "send events again from the table", runReplay},
	{"purge", "", "delete published rows that are old enough", runPurge},
	{"doctor", "", "what is wrong with this set-up", runDoctor},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// program is what every command gets.
type program struct {
	out, progress io.Writer
	envFile       string
	json          bool
}

// usageError is wrong use: exit code 2.
type usageError string

func (e usageError) Error() string { return string(e) }

// errFound says that the command did its work and what it printed is bad news: exit code 1, and nothing more to say.
var errFound = errors.New("something is wrong")

func run(ctx context.Context, args []string, out, progress io.Writer) int {
	err := dispatch(ctx, args, out, progress)
	var wrong usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFound):
		return 1
	case errors.As(err, &wrong):
		fmt.Fprintln(progress, err)
		return 2
	default:
		fmt.Fprintln(progress, "outboxctl:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) == 0 {
		return usageError(usage())
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		p := &program{out: out, progress: progress}
		flags := flag.NewFlagSet("outboxctl "+c.name, flag.ContinueOnError)
		flags.SetOutput(progress)
		flags.Usage = func() {
			fmt.Fprintf(progress, "usage: outboxctl %s %s [flags]\n%s\n", c.name, c.arguments, c.summary)
			flags.PrintDefaults()
		}
		flags.StringVar(&p.envFile, "env-file", "", "`file` with the set-up's variables; without it the environment, or "+localEnvFile)
		flags.BoolVar(&p.json, "json", false, "print one JSON object")
		return c.run(ctx, p, flags, args[1:])
	}
	return usageError(fmt.Sprintf("unknown command %q\n%s", args[0], usage()))
}

func usage() string {
	var b strings.Builder
	b.WriteString("usage: outboxctl <command> [flags]; outboxctl <command> -h tells more\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-8s %s\n", c.name, c.summary)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// parse reads flags wherever they stand and returns the other arguments.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError(flags.Name() + ": see -h") // the flag package has said what is wrong
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// report is what a command found or did. It prints itself as text; its JSON is that of the type.
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
