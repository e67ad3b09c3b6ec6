package poller_test

import (
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/lab/poller"
)

// The consumer is made where the path makes it. Package local imports poller, so only a test outside of poller can do that.
func init() {
	poller.NewConsumer = func(bus *eventbridge.Client, log *slog.Logger) (poller.Function, error) {
		consumer, err := local.ConsumerConfig{
			Services: local.Services{Region: bus.Options().Region, SQSURL: "http://127.0.0.1:1", Bus: "bus", FailureQueueURL: "http://127.0.0.1:1/000000000000/discarded"},
			Log:      log,
		}.NewConsumer(bus)
		if err != nil {
			return nil, err
		}
		return poller.Handler(consumer.Handle), nil
	}
}
