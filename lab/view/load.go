package view

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/domain"
)

const (
	maxLoad = 500 // cars a second
	// loadAtOnce bounds the requests under way. An API that does not keep up gets fewer a second, and never a queue of them.
	loadAtOnce = 32
	changeable = 256 // cars that a later request may change
	// apiTimeout is longer than the API takes for a request, which is 45 s at most. A request that is given up earlier may still make
	// a car, and an experiment would say that a refused request has made one.
	apiTimeout = time.Minute
)

// load sends cars to the API at a pace, whatever the API answers. Four of five requests create a
// car. The fifth changes one, because only a car with several versions can lose its order.
type load struct {
	url    string
	client *http.Client
	rate   atomic.Int64
	failed atomic.Int64 // requests without a 2xx
	wake   chan struct{}

	mu   sync.Mutex
	cars []string // ids, the latest at next-1
	next int
}

func newLoad(apiURL string) *load {
	return &load{url: apiURL, wake: make(chan struct{}, 1), client: &http.Client{
		Timeout: apiTimeout,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: loadAtOnce, MaxConnsPerHost: loadAtOnce, IdleConnTimeout: 5 * time.Second, DisableCompression: true,
		},
	}}
}

func (l *load) set(rate int) {
	l.rate.Store(int64(min(max(rate, 0), maxLoad)))
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends. It then cuts off the requests under way, because nobody waits for their
// answers.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	var sending sync.WaitGroup
	defer sending.Wait()
	places := make(chan struct{}, loadAtOnce)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	due, last := 0.0, time.Now()
	for ctx.Err() == nil {
		rate := l.rate.Load()
		if rate == 0 {
			select {
			case <-ctx.Done():
			case <-l.wake:
			}
			due, last = 0, time.Now()
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		// A machine that slept does not catch up.
		due = min(due+now.Sub(last).Seconds()*float64(rate), float64(rate)/4+1)
		last = now
	beat:
		for ; due >= 1; due-- {
			select {
			case places <- struct{}{}:
			default:
				due = 0 // the API does not keep up
				break beat
			}
			sending.Go(func() {
				defer func() { <-places }()
				l.one(ctx)
			})
		}
	}
}

func (l *load) one(ctx context.Context) {
	if id := l.pick(); id != "" && rand.IntN(5) == 0 {
		l.send(ctx, http.MethodPatch, domain.Path+"/"+id, domain.Change(rand.IntN(100), "Repainted"))
		return
	}
	if id := l.send(ctx, http.MethodPost, domain.Path, someCar()); id != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.cars) < changeable {
			l.cars = append(l.cars, id)
		} else {
			l.cars[l.next%changeable] = id
		}
		l.next++
	}
}

func someCar() string { return domain.Sample(rand.IntN(1000)) }

func (l *load) pick() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cars) == 0 {
		return ""
	}
	return l.cars[rand.IntN(len(l.cars))]
}

// send counts failed requests and goes on. A load that ended at the first 500 would hide the fault
// it is there to show.
func (l *load) send(ctx context.Context, method, path, body string) (id string) {
	id, err := request(ctx, l.client, method, l.url+path, body)
	if err != nil && ctx.Err() == nil {
		l.failed.Add(1)
	}
	return id
}

// request returns the id of the answer's car, or an error for an answer without success.
func request(ctx context.Context, client *http.Client, method, url, body string) (id string, err error) {
	status, answer, err := domain.Send(ctx, client, method, url, body)
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s: %d", method, url, status)
	}
	_, id = domain.Read(answer)
	return id, err
}

// create creates n cars at the same time. It returns an error if one of them was not created.
func (l *load) create(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(loadAtOnce)
	for range n {
		group.Go(func() error {
			_, err := request(ctx, l.client, http.MethodPost, l.url+domain.Path, someCar())
			return err
		})
	}
	return group.Wait()
}
