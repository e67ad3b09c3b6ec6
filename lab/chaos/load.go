package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

const (
	hotCars  = 6 // changed all the time: what has many versions has an order to lose
	updaters = 4
	creators = 2 // of each sort
	// requestTimeout is a client's patience. What was sent may still be done afterwards.
	requestTimeout = 5 * time.Second
)

// history is what the clients and writers of a round know. Safe for concurrent use.
type history struct {
	round  int
	awsDir string // where the bus's journal is

	mu      sync.Mutex
	moments []int64 // for each judge.Moments, how much of the journal there was
	tokens  int
	known   judge.Round // without what collect finds
}

func (h *history) add(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// moment returns the present time as a number for a judge.Span. The bus's journal says what had
// arrived by then, so no clock is read.
func (h *history) moment() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen, err := awslocal.BusEnd(h.awsDir)
	if len(h.moments) > 0 && (err != nil || seen == 0) {
		seen = h.moments[len(h.moments)-1] // the journal had at least that much
	}
	h.moments = append(h.moments, seen)
	return len(h.moments)
}

// token is unique in the run.
func (h *history) token(prefix string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens++
	return fmt.Sprintf("%s%d-%d", prefix, h.round, h.tokens)
}

// clients load the API until ctx ends.
type clients struct {
	api     string
	http    *http.Client
	history *history
	hot     []string // car ids
}

func newClients(api string, h *history) *clients {
	transport := &http.Transport{MaxIdleConnsPerHost: updaters + 2*creators}
	return &clients{api: api, history: h, http: &http.Client{Transport: transport, Timeout: requestTimeout}}
}

// warmUp creates the hot cars. Each create needs an answer, because nobody can change a car whose
// id is not known.
func (c *clients) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for len(c.hot) < hotCars {
		id, err := surely(ctx, func() string { return c.create(ctx, "") })
		if err != nil {
			return fmt.Errorf("creating the hot cars: %w", err)
		}
		c.hot = append(c.hot, id)
	}
	return nil
}

// surely makes requests until one is answered with success, and returns the car's id.
func surely(ctx context.Context, request func() (id string)) (string, error) {
	for {
		if id := request(); id != "" {
			return id, nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// run returns once ctx has ended and every request is answered or given up.
func (c *clients) run(ctx context.Context) {
	var group errgroup.Group
	work := func(pause time.Duration, request func()) {
		group.Go(func() error {
			for ctx.Err() == nil {
				request()
				time.Sleep(pause/2 + rand.N(pause))
			}
			return nil
		})
	}
	// Requests end by their own timeout, not with ctx. Of a cancelled request nobody would know
	// whether it was made.
	requests := context.WithoutCancel(ctx)
	for range updaters {
		work(15*time.Millisecond, func() { c.change(requests, c.hot[rand.IntN(len(c.hot))], "") })
	}
	for range creators {
		work(80*time.Millisecond, func() { c.create(requests, "") })
		work(80*time.Millisecond, func() { c.createOnce(requests) })
	}
	_ = group.Wait()
	c.http.CloseIdleConnections()
}

// create asks for a car and returns its id, or nothing if that is not known.
func (c *clients) create(ctx context.Context, mark string) string {
	request, body := c.newCar(mark)
	return c.send(ctx, http.MethodPost, domain.Path, body, request)
}

// createOnce sends a create with an Idempotency-Key until it has been answered twice, as a careful
// client does. The judge then sees one car and one event, however often the API was killed in
// between, and the second answer equals the event.
func (c *clients) createOnce(ctx context.Context) {
	request, body := c.newCar("")
	request.Answer = judge.Maybe
	request.Span.Began = c.history.moment()
	for answers, tries := 0, 0; answers < 2 && tries < 200; tries++ {
		switch status, answer, _ := domain.Send(ctx, c.http, http.MethodPost, c.api+domain.Path, body, "Idempotency-Key", request.Token); {
		case status >= 200 && status < 300:
			if answers++; answers == 1 {
				request.Span.Ended = c.history.moment()
			}
			request.Answer = judge.Done
			request.Car, request.CarID = domain.Read(answer)
			continue
		case status >= 400 && status < 500 && status != http.StatusConflict:
			request.Answer, answers = judge.Refused, 2
		}
		time.Sleep(100 * time.Millisecond) // 409: one of ours is still in flight
	}
	c.history.add(func() { c.history.known.Requests = append(c.history.known.Requests, request) })
}

func (c *clients) newCar(mark string) (request judge.Request, body string) {
	request = judge.Request{Op: judge.Create, Token: c.history.token(mark)}
	if mark != "" {
		c.history.add(func() { c.history.known.Poison = append(c.history.known.Poison, judge.Poison{Token: request.Token}) })
	}
	return request, domain.Create(rand.IntN(25), request.Token)
}

// change asks for a change of a car, and returns its id, or nothing if it was not answered with success.
func (c *clients) change(ctx context.Context, id, mark string) string {
	request := judge.Request{Op: judge.Update, CarID: id, Token: c.history.token(mark)}
	return c.send(ctx, http.MethodPatch, domain.Path+"/"+id, domain.Change(rand.IntN(25), request.Token), request)
}

// send makes one request and notes what the client knows afterwards, which is done, refused, or
// maybe.
func (c *clients) send(ctx context.Context, method, target, body string, r judge.Request) string {
	r.Span.Began = c.history.moment()
	status, answer, _ := domain.Send(ctx, c.http, method, c.api+target, body)
	r.Answer = judge.Maybe
	id := ""
	switch {
	case status >= 400 && status < 500:
		r.Answer = judge.Refused
	case status >= 200 && status < 300:
		r.Answer = judge.Done
		r.Span.Ended = c.history.moment()
		r.Car, id = domain.Read(answer)
		if r.Op == judge.Create {
			r.CarID = id
		}
	}
	c.history.add(func() { c.history.known.Requests = append(c.history.known.Requests, r) })
	return id
}
