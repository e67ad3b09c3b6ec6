// Package dev is `make dev`. It runs the whole path on this machine, with one line per event and
// the live view, until Ctrl-C.
package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/private"
	"rds-outbox-demo/lab/process"
	"rds-outbox-demo/lab/view"
)

// Config of a run.
type Config struct {
	Path  local.Config // Log, OnEvent, Observe and Progress are set here
	Fresh bool         // begin with an empty data folder
	Out   *os.File
	// View is the address that the live view listens on.
	View string
	// Browser opens the live view where Out is a terminal. If it is nil nothing opens it.
	Browser func(url string)
}

// Run runs the path until ctx ends, which is a success, or a part of it ends, which is not.
func Run(ctx context.Context, c Config) (err error) {
	unlock, err := lock(c.Path.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Fresh {
		if err := empty(ctx, c.Path.Dir); err != nil {
			return err
		}
	}
	logFile, err := process.OpenLog(filepath.Join(c.Path.Dir, "dev.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	out := c.Out
	c.Path.Log = slog.New(slog.NewMultiHandler(
		slog.NewJSONHandler(logFile, nil),
		newRateLimited(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelWarn})),
	))
	c.Path.OnEvent = func(a local.Arrival) { fmt.Fprintln(out, eventLine(a)) }
	c.Path.Progress = func(what string) { fmt.Fprintf(out, "starting %s\n", what) }
	watch := view.NewWatch()
	c.Path.Observe = watch.Observer()

	p, err := local.Start(ctx, c.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	// A password of the database or of AWS may be in it.
	env := "# The set-up of the `make dev` that runs here, for outboxctl. Made at its start, gone at its end.\n" + strings.Join(p.OperatorEnv(), "\n") + "\n"
	removeEnv, err := leave(c.Path.Dir, "outboxctl.env", []byte(env))
	if err != nil {
		return err
	}
	defer removeEnv()
	live, err := view.Start(ctx, view.Config{Path: p, Watch: watch, Listen: c.View, Log: c.Path.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	reach, err := json.Marshal(control{live.URL(), live.Token()})
	if err != nil {
		return err
	}
	removeControl, err := leave(c.Path.Dir, controlFile, reach)
	if err != nil {
		return err
	}
	defer removeControl()
	fmt.Fprint(out, banner(c.Path, p, live.URL()))
	if isTerminal(out) && c.Browser != nil {
		c.Browser(live.URL())
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "stopping")
		return nil
	case err := <-p.Failed():
		return err
	}
}

// lock makes this the only `make dev` on the folder, before anything in it is touched.
func lock(dir string) (unlock func(), err error) {
	if err := private.Folder(dir); err != nil {
		return nil, err
	}
	folder, err := private.Lock(dir)
	if err != nil {
		return nil, fmt.Errorf("end the other `make dev` that runs on %s, and try again (%w)", dir, err)
	}
	return func() { _ = folder.Close() }, nil
}

// empty removes the content of the data folder. The folder itself stays, because it carries our
// lock.
func empty(ctx context.Context, dir string) error {
	if err := postgres.Remove(ctx, filepath.Join(dir, "postgres")); err != nil {
		return fmt.Errorf("FRESH=1: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("FRESH=1: reading the data folder: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("FRESH=1: emptying the data folder: %w", err)
		}
	}
	return nil
}

func banner(c local.Config, p *local.Path, viewURL string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe path is up: ① %s\n\n", p.APIURL)
	fmt.Fprintf(&b, "  curl -i %s -H 'Content-Type: application/json' -d '%s'\n\n", p.APIURL+domain.Path, domain.Sample(0))
	fmt.Fprintf(&b, "The live view: %s\n", viewURL)
	fmt.Fprintf(&b, "All that the API can do: %s/openapi.json\n", p.APIURL)
	fmt.Fprintf(&b, "All that is on the bus: %s/asyncapi.yaml\n", p.APIURL)
	fmt.Fprintf(&b, "Elsewhere: make psql, make relay-stop, make relay-start, bin/outboxctl audit. Logs and data: %s. Ctrl-C ends.\n", c.Dir)
	if c.DatabaseURL != "" {
		b.WriteString("On your server the slot outbox_relay stays when this ends, and keeps WAL until it is dropped: SELECT pg_drop_replication_slot('outbox_relay');\n")
	}
	b.WriteString("One line per event, with the time since its commit at ③ WAL read, ④ stream, ⑤ consumer, ⑥ bus:\n\n")
	return b.String()
}

// eventLine is "CarCreated  5f0c9d4e-... v1  ③ 1.2 ms  ④ 3.0 ms  ⑤ 120.4 ms  ⑥ 124.9 ms". The id is the event's, because outboxctl
// asks for it. Rows of the initial load have no commit time, so only the bus is known for them.
func eventLine(a local.Arrival) string {
	var detail struct {
		EventID          string `json:"eventId"`
		AggregateVersion int64  `json:"aggregateVersion"`
	}
	_ = json.Unmarshal(a.Event.Detail, &detail) // the bus has accepted it as JSON
	line := fmt.Sprintf("%s  %s v%d", a.Event.DetailType, detail.EventID, detail.AggregateVersion)
	t := a.Times
	switch {
	case len(a.Event.Resources) > 0: // replay/<id>
		return line + "  ⑥ on the bus again (" + strings.Join(a.Event.Resources, ", ") + ")"
	case t.Commit.IsZero():
		return line + "  ⑥ on the bus (from the initial load)"
	}
	for _, hop := range []struct {
		sign string
		at   time.Time
	}{{"③", t.Read}, {"④", t.Stream}, {"⑤", t.Consumer}, {"⑥", t.Bus}} {
		line += fmt.Sprintf("  %s %s", hop.sign, millis(hop.at.Sub(t.Commit)))
	}
	return line
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// control tells other programs of this user how to reach the live view of a running `make dev`.
type control struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

const controlFile = "control.json"

// leave writes a file for other programs of this user, who alone may read it. It is removed with the path.
func leave(dir, name string, content []byte) (remove func(), err error) {
	path := filepath.Join(dir, name)
	_ = os.Remove(path) // of a run that was killed; WriteFile would keep its mode
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return func() { _ = os.Remove(path) }, nil
}

// Control asks the `make dev` that runs on dir to stop or start its relay, and prints its answer.
func Control(ctx context.Context, dir, action string) error {
	if action != "stop" && action != "start" {
		return fmt.Errorf("relay %q: say stop or start", action)
	}
	path := filepath.Join(dir, controlFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	var view control
	if err := json.Unmarshal(content, &view); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	status, answer, err := domain.Send(ctx, http.DefaultClient, http.MethodPost, view.URL+"/relay/"+action, "", "X-View-Token", view.Token)
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	var said string
	if status != http.StatusOK || json.Unmarshal(answer, &said) != nil {
		return fmt.Errorf("relay %s: %s", action, answer)
	}
	_, err = fmt.Fprintln(os.Stdout, said)
	return err
}
