// Command traffic is what run.sh does with the entity of lab/domain.
//
// traffic send <folder> creates and changes entities until SIGTERM, waits until their events are on the emulator's bus, and has them
// judged. In: TEST_DATABASE_URL, and the folder with the bus's journal (emulator/stream.py). Out: `traffic: on the bus` as soon as the
// first events are, and at the end one line with counts. Exit code 1 when an event is lost, out of order or wrong.
//
// The other commands (entity.go) are about one entity: traffic request <file> prints the request that creates it, id <file> its id from
// the answer, counted a statement that tells whether carStats has counted it, and event <id> <file> ends with 1 for another event.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

const (
	// hot entities are changed in each turn. What has many versions has an order to lose.
	hot = 2
	// kinds is how many numbers after zero have other kinds than it has, so that the totals of the other steps can be told from ours.
	kinds = 20
	// pace is the time between two turns. A turn is left out while more than window events are under way, because every event costs
	// the machine a run of two functions.
	pace   = time.Second
	window = 12
	// patience is how long nothing may arrive before the missing events count as lost.
	patience = time.Minute
	// quiet lets what comes twice come before it is judged.
	quiet = time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "send":
		return run(ctx, args[1], os.Getenv("TEST_DATABASE_URL"))
	case len(args) == 2 && args[0] == "request":
		return request(args[1])
	case len(args) == 2 && args[0] == "id":
		return id(args[1])
	case len(args) == 3 && args[0] == "event":
		return event(args[1], args[2])
	case len(args) == 1 && args[0] == "counted":
		return counted()
	}
	return errors.New("usage: traffic send <folder> | request <file> | id <file> | event <id> <file> | counted")
}

func run(until context.Context, journal, databaseURL string) error {
	ctx := context.WithoutCancel(until)
	config, err := pgsession.ParsePoolConfig(databaseURL)
	if err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	api, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	begin, err := awslocal.BusEnd(journal)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := traffic{api: api}
	go func() { cancel(t.follow(ctx, journal, begin)) }()
	if err := t.turn(ctx); err != nil {
		return err
	}
	if err := t.bus.Wait(ctx, len(t.requests), patience); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	fmt.Fprintln(os.Stdout, "traffic: on the bus")
	for ticker := time.NewTicker(pace); until.Err() == nil && ctx.Err() == nil; {
		if t.bus.Wait(until, len(t.requests)-window, patience) == nil {
			if err := t.turn(ctx); err != nil {
				return err
			}
		}
		select {
		case <-until.Done():
		case <-ticker.C:
		}
	}
	// Whoever has ended the traffic has done what was to be done meanwhile. So these events come after it.
	if err := t.turn(ctx); err != nil {
		return err
	}
	late := t.bus.Wait(ctx, len(t.requests), patience) // what is missing, the judge says
	t.bus.Settle(ctx, quiet)
	return errors.Join(t.judge(ctx, pool), late, context.Cause(ctx))
}

type traffic struct {
	api      http.Handler
	bus      judge.Arrivals[awslocal.BusEvent] // since the traffic began
	requests []judge.Request
	ids      []string // of the entities
}

// turn creates an entity and changes the hot ones.
func (t *traffic) turn(ctx context.Context) error {
	id, err := t.send(ctx, http.MethodPost, domain.Path, domain.Create, http.StatusCreated, judge.Request{Op: judge.Create})
	if err != nil {
		return err
	}
	t.ids = append(t.ids, id)
	for _, id := range t.ids[:min(hot, len(t.ids))] {
		r := judge.Request{Op: judge.Update, CarID: id}
		if _, err := t.send(ctx, http.MethodPatch, domain.Path+"/"+id, domain.Change, http.StatusOK, r); err != nil {
			return err
		}
	}
	return nil
}

// send makes a request and notes it with its answer. body is domain.Create or domain.Change.
func (t *traffic) send(ctx context.Context, method, target string, body func(int, string) string, want int, r judge.Request) (id string, err error) {
	r.Token, r.Answer = fmt.Sprintf("Token %d", len(t.requests)), judge.Done
	n := zero + 1 + len(t.requests)%kinds
	request := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body(n, r.Token)))
	request.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	t.api.ServeHTTP(response, request)
	if response.Code != want {
		return "", fmt.Errorf("%s %s answered %d: %s", method, target, response.Code, response.Body)
	}
	if r.Car, r.CarID = domain.Read(response.Body.Bytes()); r.CarID == "" {
		return "", fmt.Errorf("%s %s answered without an id: %s", method, target, response.Body)
	}
	t.requests = append(t.requests, r)
	return r.CarID, nil
}

// judge holds what arrived against the tables and the answers.
func (t *traffic) judge(ctx context.Context, pool *pgxpool.Pool) error {
	round := judge.Round{Requests: t.requests}
	round.Arrivals, _ = t.bus.Take()
	var err error
	if round.Rows, err = query[judge.Row](ctx, pool, `SELECT id, aggregate_type, aggregate_id, aggregate_version AS version, event_type, event_data AS data,
		traceparent, created_at FROM outbox WHERE aggregate_id = ANY($1)`, t.ids); err != nil {
		return err
	}
	if round.Cars, err = query[judge.Car](ctx, pool, domain.Rows+" WHERE id::text = ANY($1)", t.ids); err != nil {
		return err
	}
	others, err := domain.Kind([]byte(domain.Create(zero, token)))
	if err != nil {
		return err
	}
	if round.Stats, err = query[judge.Stat](ctx, pool, "SELECT * FROM ("+domain.Totals+") AS totals WHERE kind <> $1", others); err != nil {
		return err
	}
	v := judge.Judge(round)
	fmt.Fprintf(os.Stdout, "traffic: %d events, %d lost, %d out of order, %d wrong, %d duplicates\n", v.Events, v.Lost, v.Reordered, v.Wrong, v.Duplicates)
	for _, violation := range v.Violations {
		fmt.Fprintln(os.Stdout, violation.Rule+":", violation.Text)
	}
	if len(v.Violations) > 0 {
		return errors.New("the promise is broken, see above")
	}
	return nil
}

func query[T any](ctx context.Context, pool *pgxpool.Pool, sql string, argument any) ([]T, error) {
	rows, err := pool.Query(ctx, sql, argument)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// follow takes what comes into the journal, until ctx ends.
func (t *traffic) follow(ctx context.Context, journal string, position int64) (err error) {
	for err == nil && ctx.Err() == nil {
		position, err = awslocal.ReadBusFrom(journal, position, func(e awslocal.BusEvent, _ int64) error {
			var detail struct{ EventID uuid.UUID }
			if err := json.Unmarshal(e.Detail, &detail); err != nil {
				return fmt.Errorf("reading an entry of the bus: %w", err)
			}
			t.bus.Add(detail.EventID, e)
			return nil
		})
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
