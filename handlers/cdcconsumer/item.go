package cdcconsumer

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// state of a record. What is not done is delivered again, so a record that nobody came to can never count as done.
type state int

const (
	stateUnread    state = iota
	stateEvent           // to be published
	statePoison          // can never be published, and has to be parked
	stateSkipped         // done, because it is not an event of ours
	statePublished       // done, because the bus accepted it
	stateParked          // done, because the failure queue accepted it
)

func (s state) done() bool { return s >= stateSkipped }

// item is one record of the batch on its way.
type item struct {
	place  int // in the batch
	record *events.KinesisEventRecord
	state  state
	skip   outbox.Skip
	cause  error // why it is not done

	// Of an event:
	row       dbgen.Outbox
	committed time.Time // zero for a record of a load, and for one of a DMS task without transaction details
	replayed  bool
	entry     types.PutEventsRequestEntry
	size      int       // bytes that the entry counts in a call
	sent      int       // times
	published time.Time // when the bus accepted it

	// Of poison:
	reason  Reason
	code    string
	message string
}

// aggregate is what keeps its order.
type aggregate struct{ kind, id string }

func (it *item) aggregate() aggregate { return aggregate{it.row.AggregateType, it.row.AggregateID} }

// misplaced reports whether the relay chose another partition key than the event's aggregate. Events of the aggregate may then be on
// several shards, and nothing keeps their order.
func (it *item) misplaced() bool {
	return it.row.AggregateID != "" && it.record.Kinesis.PartitionKey != it.row.AggregateID
}

func (it *item) poison(reason Reason, code, message string) {
	it.state, it.reason, it.code, it.message = statePoison, reason, code, message
}

func newItems(records []events.KinesisEventRecord) []*item {
	items := make([]*item, len(records))
	for i := range records {
		items[i] = &item{place: i, record: &records[i]}
	}
	return items
}

// decodeItem returns an error only for a panic. A record that cannot be decoded is poison.
func (c *Consumer) decodeItem(ctx context.Context, it *item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			it.state, err = stateUnread, c.panicked(ctx, p)
		}
	}()
	record, skip, err := c.parse(it.record.Kinesis.Data)
	if err != nil && !sabotage.On(sabotage.SkipPoisonSilently) {
		it.poison(ReasonUndecodable, "", err.Error())
		return nil
	}
	if err != nil || skip != outbox.SkipNothing {
		it.state, it.skip = stateSkipped, skip
		return nil
	}
	it.row, it.committed, it.replayed = record.Row, record.Commit.Time, record.Replay != ""
	it.entry, err = newEntry(c.config.BusName, record)
	if err != nil {
		it.poison(ReasonUndecodable, "", err.Error())
		return nil
	}
	it.state, it.size = stateEvent, entrySize(it.entry)
	return nil
}

// lowestFailed is the first item by place that is not done, nil when all are.
func lowestFailed(items []*item) *item {
	if sabotage.On(sabotage.WrongIdentifier) {
		items = slices.Clone(items)
		slices.Reverse(items)
	}
	for _, it := range items {
		if !it.state.done() {
			return it
		}
	}
	return nil
}

// panicked makes an error of what recover returned, and logs the stack, which is gone afterwards.
func (c *Consumer) panicked(ctx context.Context, p any) error {
	err := fmt.Errorf("panic: %v", p)
	c.config.Logger.ErrorContext(ctx, "panic", "hop", 5, "error", err.Error(), "stack", string(debug.Stack()))
	return err
}

// shardID reads the shard from the event id, "shardId-000000000000:<sequence number>". No other member of the record names it.
func shardID(record *events.KinesisEventRecord) string {
	shard, _, _ := strings.Cut(record.EventID, ":")
	return shard
}
