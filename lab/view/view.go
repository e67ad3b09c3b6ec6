// Package view is the live view of `make dev`. It is a web page on 127.0.0.1 that shows the path
// ①-⑥ while events pass, and breaks it.
//
// In: calls of lab/local's Observer, polls of the database and the queues, and the page's requests.
// Out: the page, which is embedded, and its data as server-sent events. The view does not slow the
// path. An observation is only noted, the pause after a poll is twenty times as long as the poll,
// and a slow reader gets fewer frames.
package view

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"rds-outbox-demo/lab/local"
)

// Config of a View. All of it is required.
type Config struct {
	Path *local.Path
	// Watch must be the path's Config.Observe.
	Watch *Watch
	// Listen is an address of 127.0.0.1. If its port is taken, the view takes another one.
	Listen string
	Log    *slog.Logger
}

// View is a running view.
type View struct {
	path     *local.Path
	log      *slog.Logger
	watch    *Watch
	poller   *poller
	switches *switches
	tour     *tour
	load     *load
	frames   *frames[frame]
	token    string
	url      string

	server  *http.Server
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Start serves the view until Close.
func Start(ctx context.Context, c Config) (*View, error) {
	listener, err := listen(ctx, c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for the live view: %w", err)
	}
	v := &View{path: c.Path, log: c.Log, watch: c.Watch, token: rand.Text(), url: "http://" + listener.Addr().String()}
	v.poller = &poller{path: c.Path, watch: c.Watch}
	if err := v.poller.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("beginning to count the events: %w", err), listener.Close())
	}
	positions, err := c.Path.Positions()
	if err != nil {
		c.Log.Warn("live view: the shards' positions are those since the start", "error", err.Error())
	}
	v.watch.shards.found(positions, v.watch.began)
	v.switches = newSwitches(c.Path, c.Log)
	v.load = newLoad(c.Path.APIURL)
	v.tour = newTour(v.switches, v.load, v.totals)
	v.frames = newFrames(v.state, frame.same, v.timeline)
	v.server = &http.Server{
		Handler:           guard{hosts: local.Hosts(listener), token: v.token, next: v.routes()},
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v.cancel = cancel
	v.running.Go(func() { v.poller.run(running) })
	v.running.Go(func() { v.load.run(running) })
	v.running.Go(func() { v.frames.run(running) })
	v.running.Go(func() { _ = v.server.Serve(listener) })
	return v, nil
}

// listen listens on another port if this one is taken.
func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	host, _, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, err
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
}

// URL is the view's address.
func (v *View) URL() string { return v.url }

// Token is what a request that changes something has as its X-View-Token.
func (v *View) Token() string { return v.token }

// Close ends the view, with its tour and its load. The path goes on as it is, with the faults that
// are on.
func (v *View) Close() error {
	v.load.set(0)
	v.switches.close() // before the tour, which then mends nothing; that would take seconds, and the next path starts whole
	v.tour.stop()
	v.cancel()
	err := v.server.Close()
	v.running.Wait()
	return err
}
