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
	"time"

	"github.com/google/uuid"
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

// Config of a run. Root, Lab, Relay, Outboxctl, ReportDir, Out and Progress are required.
type Config struct {
	Seed     uint64
	Rounds   int
	Sabotage string // name of a rule to turn off, or empty

	// Promote makes the run one of promotions. PostgreSQL has a standby, and one of the two lanes
	// promotes it. A sabotage that only a promotion exposes sets it.
	Promote bool

	PostgreSQL string // major version; empty: that of everything else here
	Root       string // folder with node_modules, where PostgreSQL's binaries are
	Lab        string // path of this program, built with the tags failpoints and sabotage
	Relay      string // path of walrelay, built with the same tags
	Outboxctl  string // path of the operator's program
	ReportDir  string // gets report.txt, report.json and report.svg
	Out        io.Writer
	Progress   io.Writer
}

// inOrder reports whether the subscriber counts in order. Seeds are random, so half of the runs do, and the others count events as they come.
func (c Config) inOrder() bool {
	if c.Sabotage == "" {
		return c.Seed%2 == 1
	}
	return c.Sabotage == string(sabotage.ApplyEarly)
}

// ErrFailed is a run that did not pass. Its last line is written.
var ErrFailed = errors.New("chaos: not passed")

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case !failpoint.Enabled || !sabotage.Enabled:
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
	if err := p.rounds(ctx, c, result); err != nil {
		return result, errors.Join(err, writeReport(c, result))
	}
	return result, writeReport(c, result)
}

func (p *path) rounds(ctx context.Context, c Config, result *report.Report) error {
	draw := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, stream)) }
	serviceKinds, machineKinds := serviceLane, machineLane
	if c.Promote {
		serviceKinds, machineKinds = besideTrials(), promoteTrials
	}
	service, machine := &deck{kinds: p.possible(serviceKinds), random: draw(1)}, &deck{kinds: p.possible(machineKinds), random: draw(2)}
	earlier := memory{events: map[uuid.UUID]uint64{}, payloads: map[uint64]bool{}}
	var bus int64
	for n := 1; n <= c.Rounds; n++ {
		h := &history{round: n, awsDir: p.AWSDir()}
		r := &round{path: p, history: h, clients: newClients(p.APIURL, h)}
		a, b := hands(c.Sabotage, service, machine)
		started := time.Now()
		showing := r.show(c.Progress, fmt.Sprintf("round %d of %d", n, c.Rounds), len(a)+len(b))
		err := r.play(ctx, a, b, draw(uint64(10*n)), draw(uint64(10*n+1)))
		showing()
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		judged, err := r.collect(ctx, &bus, &earlier)
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		judged.InOrder, judged.Replay = c.inOrder(), askedFor
		verdict := judge.Judge(judged)
		if c.inOrder() {
			if err := r.judgeOrder(ctx, &verdict); err != nil {
				return fmt.Errorf("round %d: %w", n, err)
			}
		}
		if unexplained := register.Check(judged); len(unexplained) > 0 {
			verdict.Wrong++
			text := fmt.Sprintf("%s (%d registers are like that)", unexplained[0], len(unexplained))
			// First, because a report keeps only a limited number of violations.
			verdict.Violations = slices.Insert(verdict.Violations, 0, judge.Violation{Rule: ruleRegister, Text: text})
		}
		result.Add(judged, verdict)
		fmt.Fprintf(c.Progress, "round %d of %d: %s, %s, %s, %s, %s\n",
			n, c.Rounds, plural.Of(len(judged.Windows), "fault"), plural.Of(verdict.Events, "event"), plural.Of(verdict.Duplicates, "duplicate"),
			plural.Of(len(verdict.Violations), "violation"), time.Since(started).Round(100*time.Millisecond))
		if len(verdict.Violations) > 0 {
			return fmt.Errorf("round %d broke the promise: %s: %s", n, verdict.Violations[0].Rule, verdict.Violations[0].Text)
		}
		if n == c.Rounds && c.Sabotage == "" {
			if err := r.ask(ctx, started, judged); err != nil {
				return fmt.Errorf("round %d, as outboxctl sees it: %w", n, err)
			}
		}
		if err := r.forget(ctx, judged, &earlier); err != nil {
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
	if err := p.drill(ctx, c, c.Rounds); err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	return nil
}

// play loads the path while the trials of both lanes run, and returns when everything has settled.
func (r *round) play(ctx context.Context, a, b []trial, randomA, randomB *rand.Rand) error {
	if err := r.clients.warmUp(ctx); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		r.clients.run(loading)
	}()
	lanes, running := errgroup.WithContext(ctx)
	lanes.Go(func() error { return r.run(running, a, randomA) })
	lanes.Go(func() error { return r.run(running, b, randomB) })
	err := lanes.Wait()
	stop()
	<-loaded
	if err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	return sleep(ctx, pause)
}

func writeReport(c Config, result *report.Report) error {
	if err := os.MkdirAll(c.ReportDir, 0o700); err != nil {
		return fmt.Errorf("making the report's folder: %w", err)
	}
	for name, write := range map[string]func(io.Writer) error{
		"report.txt": result.WriteText, "report.json": result.WriteJSON, "report.svg": result.WriteSVG,
	} {
		f, err := os.Create(filepath.Join(c.ReportDir, name))
		if err == nil {
			err = errors.Join(write(f), f.Close())
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return result.WriteText(c.Out)
}
