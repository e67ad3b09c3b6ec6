package bench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/awslocal"
)

// hot sends the events of one aggregate through relay and consumer, 10 ms a call. Rule 4 allows one unanswered record of a key, so a call
// carries one event, and the next waits for its answer: a bare client that does just that is the limit. What it would cost to
// raise it: with several of a key in a call, one that is refused alone comes behind its successors.
func hot(ctx context.Context, e *environment) (rows []Row, err error) {
	const roundTrip = 10 * time.Millisecond
	n := e.size(1000) // 100,000 would take a quarter of an hour, at the same rate
	bus, err := newBus(roundTrip)
	if err != nil {
		return nil, err
	}
	defer bus.close()
	sink, err := newSink(roundTrip)
	if err != nil {
		return nil, err
	}
	defer sink.close()
	consumer, err := newConsumer(bus, eventbridge.NewFromConfig(awslocal.SDKConfig(bus.url)))
	if err != nil {
		return nil, err
	}
	backlog, err := e.newHotBacklog(ctx, n)
	if err != nil {
		return nil, err
	}
	defer backlog.close()
	batch := batchOf(n, 1)
	client := &http.Client{}
	defer client.CloseIdleConnections()

	values, err := e.alternate(ctx,
		func(ctx context.Context) (float64, error) {
			run, err := e.runRelay(ctx, backlog, sink)
			return run.rate, err
		},
		rateOf(1, n, func(ctx context.Context) error {
			for from := 0; from < n; from += batchSize {
				if err := publish(ctx, consumer, events.KinesisEvent{Records: batch.Records[from:min(n, from+batchSize)]}); err != nil {
					return err
				}
			}
			return nil
		}),
		rateOf(1, n, func(ctx context.Context) error {
			for range n {
				if err := sendCall(ctx, client, bus.url, []byte("{}")); err != nil {
					return err
				}
			}
			return nil
		}))
	if err != nil {
		return nil, err
	}
	const limit = "one call after another, rule 4"
	return []Row{
		Row{What: "one aggregate, 10 ms a call, relay", Unit: "events/s", Ours: values[0], Limit: values[2], LimitName: limit}.bounded(0.5),
		Row{What: "one aggregate, 10 ms a call, consumer", Unit: "events/s", Ours: values[1], Limit: values[2], LimitName: limit}.bounded(0.5),
	}, nil
}

// newHotBacklog is a backlog of one aggregate.
func (e *environment) newHotBacklog(ctx context.Context, rows int) (*backlog, error) {
	url, err := e.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	for _, sql := range []string{
		"SELECT pg_create_logical_replication_slot('" + backlogSlot + "', 'pgoutput')",
		fmt.Sprintf(`INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			SELECT gen_random_uuid(), 'Car', 'hot', n, 'CarUpdated', '{"make": "Toyota"}' FROM generate_series(1, %d) AS n`, rows),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("making a backlog of one aggregate: %w", err)
		}
	}
	return &backlog{conn: conn, url: url, rows: rows}, nil
}
