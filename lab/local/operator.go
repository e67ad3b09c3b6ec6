package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"rds-outbox-demo/outboxctl"
)

// nobody is a URL where nobody listens. The SDK would go to AWS for a service without a URL.
const nobody = "http://127.0.0.1:9"

// retentionDays is that of serverless.yml. Nothing here deletes rows by itself.
const retentionDays = 14

// OperatorEnv is the set-up that outboxctl takes (docs/outboxctl.md) for this path, as NAME=value.
// Where the bus is external, its log group has to be given. Without it outboxctl says what is
// missing.
func (p *Path) OperatorEnv() []string {
	return append([]string{"DATABASE_URL=" + p.DatabaseURL, "SLOT_NAME=" + p.slot, fmt.Sprint("RETENTION_DAYS=", retentionDays)}, p.Services.env()...)
}

// Operator returns the set-up of OperatorEnv for a program that uses outboxctl as a library. It looks at the local queues without
// receiving their messages.
func (p *Path) Operator() (*outboxctl.Setup, error) {
	s := p.Services
	if s.LogGroup == "" {
		return nil, errors.New("the bus is yours: BUS_LOG_GROUP names the log group that has its events, and is not set")
	}
	config, base := s.config(), cmp.Or(s.Local, nobody)
	config.BaseEndpoint = &base
	config.ConfigSources = []any{endpoints{"Kinesis": s.KinesisURL, "EventBridge": s.EventBridgeURL, "SQS": s.SQSURL, "CloudWatch Logs": s.LogsURL}}
	setup := &outboxctl.Setup{
		DatabaseURL: p.DatabaseURL, AWS: config, Stream: s.Stream, Slot: p.slot, Bus: s.Bus, BusLogGroup: s.LogGroup, FailureQueue: s.FailureQueueURL,
		DiscardQueue: s.DiscardQueueURL, Consumer: s.Consumer, RetentionDays: retentionDays,
	}
	if p.AWS != nil && p.CanBreak(SQS) == nil {
		setup.Peek = p.AWS.ReadQueue
	}
	return setup, nil
}

// endpoints has the URLs of services by the SDK's ids.
type endpoints map[string]string

// GetServiceBaseEndpoint is what the SDK asks.
func (e endpoints) GetServiceBaseEndpoint(_ context.Context, sdkID string) (url string, found bool, err error) {
	return e[sdkID], e[sdkID] != "", nil
}
