// Command traffic creates and changes cars until SIGTERM, waits until their events are on the emulator's bus, and has them judged.
//
// In: TEST_DATABASE_URL, and a folder with the bus's journal (emulator/stream.py). Out: `traffic: on the bus` as soon as the first
// events are, and at the end one line with counts. Exit code 1 when an event is lost, out of order or wrong.
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
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

const (
	// maker tells the cars of this program from those of the other steps.
	maker = "Traffic"
	// hotCars are changed in each turn. What has many versions has an order to lose.
	hotCars = 2
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
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: traffic <folder of the bus's journal>")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Getenv("TEST_DATABASE_URL")); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(until context.Context, journal, databaseURL string) error {
	ctx := context.WithoutCancel(until)
	pool, err := pgxpool.New(ctx, databaseURL)
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
	t := traffic{api: api, bus: bus{journal: journal, begin: begin}}
	if err := t.turn(ctx); err != nil {
		return err
	}
	if err := t.bus.wait(len(t.requests)); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "traffic: on the bus")
	for ticker := time.NewTicker(pace); until.Err() == nil; {
		arrived, err := t.bus.events()
		if err == nil && len(t.requests)-arrived <= window {
			err = t.turn(ctx)
		}
		if err != nil {
			return err
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
	late := t.bus.wait(len(t.requests)) // what is missing, the judge says
	time.Sleep(quiet)
	return errors.Join(t.judge(ctx, pool), late)
}

type traffic struct {
	api      http.Handler
	bus      bus
	requests []judge.Request
	hot      []string // ids of cars
}

// turn creates a car and changes the hot ones.
func (t *traffic) turn(ctx context.Context) error {
	body := `{"make":"` + maker + `","model":"Octavia","year":2023,"color":%q}`
	id, err := t.send(ctx, http.MethodPost, "/cars", body, http.StatusCreated, judge.Request{Op: judge.Create})
	if err != nil {
		return err
	}
	if len(t.hot) < hotCars {
		t.hot = append(t.hot, id)
	}
	for _, id := range t.hot {
		if _, err := t.send(ctx, http.MethodPatch, "/cars/"+id, `{"color":%q}`, http.StatusOK, judge.Request{Op: judge.Update, CarID: id}); err != nil {
			return err
		}
	}
	return nil
}

// send makes a request and notes it with its answer. body has a place for the colour, by which the judge knows the request's event.
func (t *traffic) send(ctx context.Context, method, target, body string, want int, r judge.Request) (id string, err error) {
	r.Token, r.Answer = fmt.Sprintf("Color %d", len(t.requests)), judge.Done
	request := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(fmt.Sprintf(body, r.Token)))
	request.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	t.api.ServeHTTP(response, request)
	if response.Code != want {
		return "", fmt.Errorf("%s %s answered %d: %s", method, target, response.Code, response.Body)
	}
	var answer struct{ Car json.RawMessage }
	var car struct{ ID string }
	if err := errors.Join(json.Unmarshal(response.Body.Bytes(), &answer), json.Unmarshal(answer.Car, &car)); err != nil {
		return "", fmt.Errorf("reading the answer to %s %s: %w", method, target, err)
	}
	r.Car, r.CarID = answer.Car, car.ID
	t.requests = append(t.requests, r)
	return car.ID, nil
}

// judge holds what arrived against the tables and the answers.
func (t *traffic) judge(ctx context.Context, pool *pgxpool.Pool) error {
	round := judge.Round{Requests: t.requests}
	var err error
	if round.Arrivals, err = t.bus.arrivals(); err != nil {
		return err
	}
	if round.Rows, err = query[judge.Row](ctx, pool, `SELECT o.id, aggregate_type, aggregate_id, aggregate_version AS version, event_type, event_data AS data,
		traceparent, o.created_at FROM outbox AS o JOIN cars ON cars.id::text = aggregate_id WHERE make = $1`); err != nil {
		return err
	}
	if round.Cars, err = query[judge.Car](ctx, pool, domain.Rows+" WHERE make = $1"); err != nil {
		return err
	}
	if round.Stats, err = query[judge.Stat](ctx, pool, domain.Totals+" WHERE make = $1"); err != nil {
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

func query[T any](ctx context.Context, pool *pgxpool.Pool, sql string) ([]T, error) {
	rows, err := pool.Query(ctx, sql, maker)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// bus is the journal from the beginning of the traffic on.
type bus struct {
	journal string
	begin   int64
}

func (b bus) arrivals() (all []awslocal.BusEvent, err error) {
	_, err = awslocal.ReadBusFrom(b.journal, b.begin, func(e awslocal.BusEvent, _ int64) error {
		all = append(all, e)
		return nil
	})
	return all, err
}

// wait returns when so many different events have arrived, or with an error after nothing has come for as long as patience.
func (b bus) wait(events int) error {
	came, last := time.Now(), 0
	for {
		arrived, err := b.events()
		switch {
		case err != nil || arrived >= events:
			return err
		case arrived > last:
			came, last = time.Now(), arrived
		case time.Since(came) > patience:
			return fmt.Errorf("%d of %d events are on the bus, and nothing more came for %s", arrived, events, patience)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// events is how many different events have arrived.
func (b bus) events() (int, error) {
	all, err := b.arrivals()
	different := map[uuid.UUID]bool{}
	for _, e := range all {
		var detail struct{ EventID uuid.UUID }
		if err := json.Unmarshal(e.Detail, &detail); err != nil {
			return 0, fmt.Errorf("reading an entry of the bus: %w", err)
		}
		different[detail.EventID] = true
	}
	return len(different), err
}
