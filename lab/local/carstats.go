package local

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/part"
)

// The subscriber, as infra/carstats.yml has it, but for what nobody wants to wait for here: a message that fails comes again after
// 4 seconds, and after 6 times goes to the failure queue.
const (
	localStats    = "rds-outbox-demo-dev-carstats"
	statsTimeout  = 4 * time.Second
	statsReceives = 6
	// Each event is a commit. That many at once share the disk's time, and keep up with 500 events a second.
	statsConcurrency = 20
)

// startCarStats runs the subscriber carstats; its totals are in table car_stats. Where the bus or the queues are the user's own, nobody
// fills its queue, and it is not started.
func (s *Path) startCarStats(c Config, k clients) {
	s.carStats = &carStats{fail: s.fail}
	if c.AWS.EventBridgeURL != "" || c.AWS.SQSURL != "" {
		return
	}
	s.carStats.run = func(ctx context.Context) error {
		return part.CarStats(ctx, part.CarStatsConfig{
			AWS: awslocal.SDKConfig(k.local), QueueURL: awslocal.QueueURL(k.local, localStats), DatabaseURL: s.DatabaseURL, Timeout: statsTimeout, Concurrency: statsConcurrency,
			Log: c.Observe.watchMetrics(c.Log), Watch: c.Observe.watchSubscriber,
		})
	}
	s.carStats.enable()
	s.onClose(s.carStats.disable)
}

// carStats is the subscriber's event source mapping: enabled or not.
type carStats struct {
	run  func(context.Context) error // nil: there is nothing to run
	fail func(error)

	mu     sync.Mutex
	cancel context.CancelFunc // nil while disabled
	done   chan struct{}
}

func (m *carStats) enable() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil || m.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	before, done := m.done, make(chan struct{})
	m.cancel, m.done = cancel, done
	go func() {
		defer close(done)
		if before != nil {
			<-before // one that disable did not wait for
		}
		if err := m.run(ctx); err != nil {
			m.fail(fmt.Errorf("running carstats: %w", err))
		}
	}()
}

// disable lets the batch that is under way end, and returns when nothing of it runs.
func (m *carStats) disable(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel == nil {
		return nil
	}
	m.cancel()
	m.cancel = nil
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ending carstats: %w", ctx.Err())
	}
}
