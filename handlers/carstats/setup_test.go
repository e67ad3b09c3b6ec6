package carstats_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/internal/pgtest"
)

// rig is a subscriber on a database of its own.
type rig struct {
	*carstats.Subscriber
	pool *pgxpool.Pool
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := pgtest.New(t)
	return &rig{newSubscriber(t, db.Pool, false), db.Pool}
}

func newSubscriber(t *testing.T, pool *pgxpool.Pool, inOrder bool) *carstats.Subscriber {
	t.Helper()
	s, err := carstats.New(carstats.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler), InOrder: inOrder})
	require.NoError(t, err)
	return s
}

// bothWays runs a test as events come, and in order.
func bothWays(t *testing.T, test func(t *testing.T, r *rig)) {
	for name, inOrder := range map[string]bool{"AsTheyCome": false, "InOrder": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			test(t, &rig{newSubscriber(t, db.Pool, inOrder), db.Pool})
		})
	}
}

// kind is make and year.
type kind struct {
	Make string `json:"make"`
	Year int32  `json:"year"`
}

// total is one row of car_stats.
type total struct {
	kind
	Cars, Changes int64
}

// fact is one event of a car.
type fact struct {
	event   uuid.UUID
	car     uuid.UUID
	version int64
	kind
	deleted bool
}

func (f fact) eventType() string {
	switch {
	case f.deleted:
		return "CarDeleted"
	case f.version == 1:
		return "CarCreated"
	default:
		return "CarUpdated"
	}
}

// body is the message that EventBridge makes of the event.
func (f fact) body() string {
	data, _ := json.Marshal(map[string]any{"carId": f.car, "make": f.Make, "model": "x", "year": f.Year, "color": nil, "added": "later"})
	return fmt.Sprintf(`{"version":"0","id":%q,"detail-type":%q,"source":"outbox.car","account":"000000000000","time":"2026-11-23T09:15:00Z",
		"region":"us-east-1","resources":[],"detail":{"aggregateId":%q,"aggregateType":"Car","aggregateVersion":%d,"eventId":%q,"eventData":%s,
		"timestamp":"2026-11-23T09:15:00.000001Z"}}`, uuid.New(), f.eventType(), f.car, f.version, f.event, data)
}

// batch makes a batch of bodies. The n-th message is called m<n>.
func batch(bodies ...string) (b events.SQSEvent) {
	for i, body := range bodies {
		b.Records = append(b.Records, events.SQSMessage{MessageId: fmt.Sprintf("m%d", i), Body: body, Attributes: map[string]string{"ApproximateReceiveCount": "1"}})
	}
	return b
}

// failed is what the answer names.
func failed(response events.SQSEventResponse) (ids []string) {
	for _, failure := range response.BatchItemFailures {
		ids = append(ids, failure.ItemIdentifier)
	}
	return ids
}

func (r *rig) totals(t require.TestingT) []total {
	rows, err := r.pool.Query(ctx, "SELECT make, year, cars, changes FROM car_stats ORDER BY make, year")
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n total, err error) {
		err = row.Scan(&n.Make, &n.Year, &n.Cars, &n.Changes)
		return n, err
	})
	require.NoError(t, err)
	return all
}
