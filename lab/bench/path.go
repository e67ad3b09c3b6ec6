package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
)

const (
	carsPerSecond = 500
	// pollInterval is the local poller's interval. Lambda polls a shard once a second.
	pollInterval = 200 * time.Millisecond
)

// path runs all of ①-⑥ and creates 500 cars a second over HTTP, whether or not earlier requests are
// answered. It measures the time from an event's commit to the bus, without the wait for the next
// poll. A wait longer than the interval counts.
func path(ctx context.Context, e *environment) (_ []Row, err error) {
	url, err := e.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(e.Dir, "path.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var bus judge.Arrivals[local.Times]
	s, err := local.Start(ctx, local.Config{
		Dir: filepath.Join(e.Dir, "path"), Root: e.Root, Relay: filepath.Join(e.Root, "bin", "walrelay"), Listen: "127.0.0.1:0",
		Slot: "bench_path", DatabaseURL: url, Settings: local.ForPeople(),
		OnEvent: func(a local.Arrival) { bus.Add(a.EventID, a.Times) }, Progress: func(string) {}, Log: slog.New(slog.NewJSONHandler(log, nil)),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	sent := Row{What: "cars a second created", Unit: "cars/s", Limit: Values{carsPerSecond}, LimitName: "to be created"}
	rows := []Row{
		{What: "commit to bus beside the wait for a poll, p50", Unit: "ms"}, {What: "the same, p99", Unit: "ms"},
		{What: "commit to bus, with a poll every 200 ms, p50", Unit: "ms"}, {What: "the same, p99", Unit: "ms"},
	}
	for round := range e.Rounds + 1 {
		rate, err := createCars(ctx, s.APIURL, e.size(5000))
		if err != nil {
			return nil, err
		}
		if err := bus.Wait(ctx, e.size(5000), time.Minute); err != nil {
			return nil, err
		}
		_, events := bus.Take()
		beside, whole := latencies(events)
		if round == 0 {
			continue // It warms up. What commits before the slot exists comes with the load, without times of commit.
		}
		if len(whole) < e.size(5000) {
			return nil, fmt.Errorf("%d events do not say when they were committed", e.size(5000)-len(whole))
		}
		sent.Ours = append(sent.Ours, rate)
		for i, latencies := range []Values{beside, whole} {
			rows[2*i].Ours = append(rows[2*i].Ours, latencies.percentile(50))
			rows[2*i+1].Ours = append(rows[2*i+1].Ours, latencies.percentile(99))
		}
	}
	return []Row{rows[0].atMost(15).bounded(150), rows[1].atMost(60).bounded(600), rows[2], rows[3], sent}, nil
}

// createCars posts the cars, each at its time, and returns how many a second were answered.
func createCars(ctx context.Context, url string, cars int) (rate float64, err error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	started := time.Now()
	for i := range cars {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / carsPerSecond)))
		group.Go(func() error {
			status, _, err := domain.Send(ctx, client, http.MethodPost, url+domain.Path, carBody)
			if err == nil && status != http.StatusCreated {
				err = fmt.Errorf("creating a car: %d", status)
			}
			return err
		})
	}
	err = group.Wait()
	return float64(cars) / time.Since(started).Seconds(), err
}

// latencies returns the milliseconds from commit to bus of the events whose time of commit is
// known. beside is without the wait for a poll, whole is with it.
func latencies(events []local.Times) (beside, whole Values) {
	for _, times := range events {
		if times.Commit.IsZero() {
			continue
		}
		took := times.Bus.Sub(times.Commit)
		wait := min(max(0, times.Consumer.Sub(times.Stream)), pollInterval)
		whole = append(whole, milliseconds(took))
		beside = append(beside, milliseconds(took-wait))
	}
	return beside, whole
}

// percentile returns the smallest value that is at least as large as p percent of them.
func (v Values) percentile(p int) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
