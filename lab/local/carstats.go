package local

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/lab/poller"
)

// CarStatsConfig says which queue the subscriber carstats empties and where its totals are. All but Observe is required.
type CarStatsConfig struct {
	Services    Services
	Settings    CarStatsSettings
	InOrder     bool         // it counts every version in order
	DatabaseURL string       // its totals are in table car_stats
	Log         *slog.Logger `json:"-"`
	Observe     *Observer    `json:"-"`
}

// run polls the queue as Lambda does.
func (c CarStatsConfig) run(ctx context.Context, _ net.Listener) error {
	s := c.Settings
	pool, err := openPool(context.WithoutCancel(ctx), c.DatabaseURL, "carstats", s.Concurrency)
	if err != nil {
		return err
	}
	defer pool.Close()
	subscriber, err := carstats.New(carstats.Config{
		Pool: pool, Logger: c.Observe.watchMetrics(c.Log), InOrder: c.InOrder,
		Ordered: inbox.Ordered{AskAfter: s.AskAfter},
	})
	if err != nil {
		return err
	}
	mapping, err := poller.NewQueue(poller.QueueConfig{
		SQS: c.Services.SQS(), QueueURL: c.Services.CarStatsURL, Function: poller.Handler(c.Observe.watchSubscriber(subscriber.Handle)), Log: c.Observe.watchMetrics(c.Log),
		BatchSize: s.BatchSize, Concurrency: s.Concurrency, FunctionTimeout: s.Timeout, VisibilityTimeout: s.VisibilityTimeout,
	})
	if err != nil {
		return err
	}
	var asking sync.WaitGroup
	if c.InOrder {
		schedule := poller.Schedule{Function: poller.Handler(subscriber.Handle), Rate: s.Schedule, FunctionTimeout: s.Timeout, Log: c.Log}
		asking.Go(func() { schedule.Run(ctx) })
	}
	mapping.Run(ctx)
	asking.Wait()
	return nil
}
