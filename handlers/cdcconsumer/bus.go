package cdcconsumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// busInterval is how long the consumer relies on one look at the bus.
const busInterval = time.Minute

type busDescriber interface {
	DescribeEventBus(context.Context, *eventbridge.DescribeEventBusInput, ...func(*eventbridge.Options)) (*eventbridge.DescribeEventBusOutput, error)
}

// CheckBus returns an error when the bus cannot be seen. Call it before the first batch. PutEvents cannot tell, because for a bus that does
// not exist it answers with success and an event id, and the event is lost (https://github.com/aws/aws-cli/issues/9186). CheckBus needs
// events:DescribeEventBus on the bus.
func CheckBus(ctx context.Context, client busDescriber, name string) error {
	if _, err := client.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &name}); err != nil {
		return fmt.Errorf("looking for event bus %s: %w", name, err)
	}
	return nil
}

// busLook keeps the time of the last look that found the bus.
type busLook struct {
	mu   sync.Mutex
	seen time.Time
}

// lookForBus makes the published items unpublished again if the bus is gone, because its answers
// meant nothing. It looks after publishing, because an earlier look does not notice a bus that is
// deleted meanwhile. It looks once a minute, because a look with each batch would cost each batch a
// call. Only ResourceNotFoundException says that there is no bus. After any other error the next
// batch looks again.
func (c *Consumer) lookForBus(ctx context.Context, items []*item, deadline time.Time) {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	if time.Since(c.bus.seen) < busInterval {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	now := time.Now()
	err := CheckBus(ctx, c.config.EventBridge, c.config.BusName)
	var absent *types.ResourceNotFoundException
	switch {
	case err == nil:
		c.bus.seen = now
	case errors.As(err, &absent):
		c.config.Logger.ErrorContext(ctx, "the bus is gone: what was published since it was last seen is lost, send it again (outboxctl audit, outboxctl replay)",
			"hop", 6, "last_seen", c.bus.seen.UTC(), "error", err.Error())
		for _, it := range items {
			if it.state == statePublished {
				it.state, it.cause = stateEvent, err
			}
		}
	default:
		c.config.Logger.WarnContext(ctx, "looking for the bus", "hop", 6, "last_seen", c.bus.seen.UTC(), "error", err.Error())
	}
}
