package cdcconsumer

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
)

// CheckBus returns an error when the bus cannot be seen; call it before the first batch. PutEvents is no help: for a bus that does
// not exist it answers with success and an event id, and the event is gone (https://github.com/aws/aws-cli/issues/9186).
// It needs events:DescribeEventBus on the bus.
func CheckBus(ctx context.Context, client *eventbridge.Client, name string) error {
	if _, err := client.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &name}); err != nil {
		return fmt.Errorf("looking for event bus %s: %w", name, err)
	}
	return nil
}
