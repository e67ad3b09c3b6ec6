package stack

import (
	"context"
	"fmt"
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
)

// startCarStats runs the subscriber carstats; its totals are in table car_stats. Where the bus or the queues are the user's own, nobody
// fills its queue, and it is not started.
func (s *Stack) startCarStats(ctx context.Context, c Config, k clients) {
	if c.AWS.EventBridgeURL != "" || c.AWS.SQSURL != "" {
		return
	}
	polling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := part.CarStats(polling, part.CarStatsConfig{
			AWS: awslocal.SDKConfig(k.local), QueueURL: awslocal.QueueURL(k.local, localStats), DatabaseURL: s.DatabaseURL, Timeout: statsTimeout, Log: c.Log,
		})
		if err != nil {
			s.fail(fmt.Errorf("running carstats: %w", err))
		}
	}()
	s.onClose(func(closing context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-closing.Done():
			return fmt.Errorf("ending carstats: %w", closing.Err())
		}
	})
}
