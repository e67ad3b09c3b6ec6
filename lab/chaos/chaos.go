// Package chaos is `make chaos`: it runs the whole path as processes of the operating system, loads it, breaks it in every way that
// it knows of, and judges whether the promise held.
//
// In: a seed, which draws the faults, and a number of rounds. Out: a report, and the last line `chaos: pass ...` or `chaos: FAIL
// seed=...`. With a sabotage, one rule of the path is turned off, and the run passes when the judge notices.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/plural"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/lab/chaos/report"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/judge/register"
)

// In each round this many trials run in each of the two lanes. A run of the default length meets
// every kind.
const servicePerRound, machinePerRound = 7, 9

// hotPerRound is how many cars of a round, on the average of a run, must have had judge.MinInFlight versions on their way during
// faults. A run below it has not tried to reorder anything.
const hotPerRound = 3

// Config of a run. Root, Lab, Relay, Outboxctl, Report, Out and Progress are required.
type Config struct {
	Seed     uint64
	Rounds   int
	Sabotage string // name of a rule to turn off, or empty

	// Promote makes the run one of promotions. PostgreSQL has a standby, and one of the two lanes
	// promotes it. A sabotage that only a promotion exposes sets it.
	Promote bool

	PostgreSQL string                     // major version; empty: that of everything else here
	Root       string                     // folder with node_modules, where PostgreSQL's binaries are
	Lab        string                     // path of this program, built with the tags failpoints and sabotage
	Relay      string                     // path of walrelay, built with the same tags
	Outboxctl  string                     // path of the operator's program
	Report     func(*report.Report) error // writes it, before the last line
	Out        io.Writer                  // gets the last line
	Progress   io.Writer
}

// inOrder reports whether the subscriber counts in order. Seeds are random, so half of the runs do, and the others count events as they come.
func (c Config) inOrder() bool {
	if c.Sabotage == "" {
		return c.Seed%2 == 1
	}
	return c.Sabotage == string(sabotage.ApplyEarly)
}

// repairs reports whether the subscriber brings back what is lost behind the bus. It counts in order, and asks for what it misses.
func (c Config) repairs() bool { return c.inOrder() && c.Sabotage == "" }

// ErrFailed is a run that did not pass. Its last line is written.
var ErrFailed = errors.New("chaos: not passed")

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	if !failpoint.Enabled || !sabotage.Enabled {
		return errors.New("chaos: this program is a release build and cannot be broken: use `make chaos`, which builds another one")
	}
	if _, known := trialFor(c.Sabotage); c.Sabotage != "" && !known {
		return fmt.Errorf("chaos: SABOTAGE %q is unknown: `make -s chaos SABOTAGE=list` lists the names", c.Sabotage)
	}
	return nil
}

// Run makes the run. It always ends with the last line on Out. The error is ErrFailed, or what
// keeps that line from being written.
func Run(ctx context.Context, c Config) error {
	if t, ok := trialFor(c.Sabotage); ok && isPromotion(t) {
		c.Promote = true
	}
	result, err := run(ctx, c)
	var line string
	switch violation, ok := caught(c.Sabotage, result.Violations); {
	case ok:
		line, err = fmt.Sprintf("sabotage %s: caught: %s: %s", c.Sabotage, violation.Rule, oneLine(violation.Text)), nil
	case c.Sabotage != "":
		if err != nil {
			fmt.Fprintln(c.Progress, err)
		}
		fmt.Fprintln(c.Progress, result.Line())
		line, err = fmt.Sprintf("sabotage %s: NOT CAUGHT", c.Sabotage), ErrFailed
	case err != nil:
		fmt.Fprintln(c.Progress, err)
		line = fmt.Sprintf("chaos: FAIL %s: %s", result.Line(), oneLine(err.Error()))
	default:
		line = "chaos: pass " + result.Line()
	}
	if err != nil {
		err = ErrFailed
	}
	_, writeErr := fmt.Fprintln(c.Out, line)
	return errors.Join(err, writeErr)
}

// oneLine keeps the last line the last line, whatever an error quotes.
func oneLine(text string) string {
	line := strings.Join(strings.Fields(text), " ")
	if runes := []rune(line); len(runes) > 500 {
		line = string(runes[:500]) + " ..."
	}
	return line
}

// run returns what was judged, whatever else went wrong.
func run(ctx context.Context, c Config) (result *report.Report, err error) {
	result = report.New(c.Seed)
	dir, err := os.MkdirTemp("", "outbox-chaos-")
	if err != nil {
		return result, err
	}
	logFile, err := os.Create(filepath.Join(dir, "chaos.log"))
	if err != nil {
		return result, err
	}
	defer logFile.Close()
	defer func() {
		// Worth a look only if it went wrong by itself.
		if _, ok := caught(c.Sabotage, result.Violations); err == nil || ok || ctx.Err() != nil {
			err = errors.Join(err, os.RemoveAll(dir))
			return
		}
		fmt.Fprintf(c.Progress, "logs and data are in %s\n", dir)
	}()
	fmt.Fprintf(c.Progress, "seed %d: starting PostgreSQL, the AWS listener, the consumer, the relay and the API\n", c.Seed)
	p, err := startPath(ctx, c, dir, slog.New(slog.NewTextHandler(logFile, nil)))
	if err != nil {
		return result, fmt.Errorf("starting the path: %w", err)
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.pool.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000").
		Scan(&result.PostgreSQL, &p.version); err != nil {
		return result, err
	}
	if c.Promote {
		if len(p.possible(promoteTrials)) == 0 {
			return result, errors.New("PROMOTE needs PostgreSQL 17 or later, which has failover slots")
		}
		if err := p.AddStandby(ctx); err != nil {
			return result, err
		}
	}
	err = p.rounds(ctx, result)
	return result, errors.Join(err, c.Report(result))
}

func (p *path) rounds(ctx context.Context, result *report.Report) error {
	c, serviceKinds, machineKinds := p.config, serviceLane, machineLane
	if c.Promote {
		serviceKinds, machineKinds = besideTrials(), promoteTrials
	}
	service, machine := &deck{kinds: p.possible(serviceKinds), random: c.draw(1)}, &deck{kinds: p.possible(machineKinds), random: c.draw(2)}
	for n := 1; n <= c.Rounds; n++ {
		if err := p.newRound(n).run(ctx, service, machine, result); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	if c.Sabotage != "" {
		return nil
	}
	if hot := hotPerRound * c.Rounds; result.Hot < hot {
		return fmt.Errorf("only %d cars had %d versions on their way during faults, which is no test of order: %d are asked for",
			result.Hot, judge.MinInFlight, hot)
	}
	if err := p.newRound(c.Rounds + 1).drill(ctx); err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	return nil
}

// draw returns one of the run's sources of chance.
func (c Config) draw(stream int) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, uint64(stream))) }

func (p *path) newRound(number int) *round {
	h := &history{round: number, awsDir: p.AWSDir()}
	return &round{path: p, history: h, clients: newClients(p.APIURL, h)}
}

// run plays the round, judges it and adds it to the report. A broken promise is an error.
func (r *round) run(ctx context.Context, service, machine *deck, result *report.Report) error {
	c, started := r.config, time.Now()
	name := fmt.Sprintf("round %d of %d", r.history.round, c.Rounds)
	a, b := hands(c.Sabotage, service, machine)
	showing := r.show(c.Progress, name, len(a)+len(b))
	err := r.play(ctx, a, b)
	showing()
	if err != nil {
		return err
	}
	judged, err := r.collect(ctx)
	if err != nil {
		return err
	}
	verdict := judge.Judge(judged)
	if err := r.judgeOrder(ctx, &verdict); err != nil {
		return err
	}
	if unexplained := register.Check(judged); len(unexplained) > 0 {
		verdict.Wrong++
		text := fmt.Sprintf("%s (%d registers are like that)", unexplained[0], len(unexplained))
		// First, because a report keeps only a limited number of violations.
		verdict.Violations = slices.Insert(verdict.Violations, 0, judge.Violation{Rule: ruleRegister, Text: text})
	}
	result.Add(judged, verdict)
	fmt.Fprintf(c.Progress, "%s: %s, %s, %s, %s, %s\n",
		name, plural.Of(len(judged.Windows), "fault"), plural.Of(verdict.Events, "event"), plural.Of(verdict.Duplicates, "duplicate"),
		plural.Of(len(verdict.Violations), "violation"), time.Since(started).Round(100*time.Millisecond))
	if len(verdict.Violations) > 0 {
		return fmt.Errorf("the promise is broken: %s: %s", verdict.Violations[0].Rule, verdict.Violations[0].Text)
	}
	if r.history.round == c.Rounds && c.Sabotage == "" {
		if err := r.ask(ctx, started, judged); err != nil {
			return fmt.Errorf("as outboxctl sees it: %w", err)
		}
	}
	return r.forget(ctx, judged)
}

// showEvery is how often a round, which takes half a minute, says that it moves.
const showEvery = 5 * time.Second

// show prints a line every showEvery until the function that it returns is called.
func (r *round) show(out io.Writer, name string, faults int) (stop func()) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var showing sync.WaitGroup
	showing.Go(func() {
		for sleep(ctx, showEvery) == nil {
			struck := 0
			r.history.add(func() { struck = len(r.history.known.Windows) })
			fmt.Fprintf(out, "%s: %d of %d faults have struck, %d s\n", name, struck, faults, int(time.Since(began).Seconds()))
		}
	})
	return func() {
		cancel()
		showing.Wait()
	}
}

// play loads the path while the trials of both lanes run, and returns when everything has settled.
func (r *round) play(ctx context.Context, a, b []trial) error {
	if err := r.clients.warmUp(ctx); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var loaded sync.WaitGroup
	loaded.Go(func() { r.clients.run(loading) })
	lanes, running := errgroup.WithContext(ctx)
	for lane, trials := range [][]trial{a, b} {
		lanes.Go(func() error { return r.runTrials(running, trials, r.config.draw(10*r.history.round+lane)) })
	}
	err := lanes.Wait()
	stop()
	loaded.Wait()
	if err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	return sleep(ctx, pause)
}
