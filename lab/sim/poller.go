package sim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"rds-outbox-demo/handlers/cdcconsumer"
)

const (
	maxBatch        = 20
	functionTimeout = 30 * time.Second
)

// poll is Lambda on one shard. It delivers each batch until the answer names no failed record.
func (w *world) poll(shard int, log *slog.Logger) {
	var p *process
	var consumer *cdcconsumer.Consumer
	for n := 0; ; n++ {
		w.mu.Lock()
		for !w.over && w.stream.read[shard] >= len(w.stream.shards[shard]) {
			w.changed.Wait()
		}
		w.mu.Unlock()
		if !w.sleep(w.delay(time.Millisecond, 60*time.Millisecond, "poll", shard)) {
			return
		}
		w.mu.Lock()
		if p == nil || p.dead {
			p = &process{name: "consumer", gone: make(chan struct{})}
			var err error
			if consumer, err = cdcconsumer.New(cdcconsumer.Config{
				EventBridge: busOf{w, p}, SQS: queueOf{w, p}, BusName: "bus", FailureQueueURL: "https://sqs.local/failures", Logger: log,
			}); err != nil {
				panic(err)
			}
			w.note("consumer of shard %d starts", shard)
		}
		first := w.stream.read[shard]
		batch := w.stream.shards[shard][first:]
		batch = batch[:min(len(batch), 1+int(w.draw("batch", shard)%maxBatch))]
		_, fails := w.strike(FailBatch)
		w.note("batch of %d from %d of shard %d", len(batch), first, shard)
		w.mu.Unlock()
		if fails {
			continue
		}
		answer, err := w.invoke(p, consumer, shard, batch)
		w.sleep(w.delay(time.Microsecond, time.Millisecond, "answer", shard))
		w.mu.Lock()
		switch done := checkpoint(batch, answer); {
		case err != nil || p.dead:
			w.note("batch of shard %d failed", shard)
		default:
			if done == len(batch) {
				if _, again := w.strike(Again); again {
					break
				}
			}
			w.stream.read[shard] += done
			w.note("checkpoint of shard %d is %d", shard, w.stream.read[shard])
		}
		w.mu.Unlock()
	}
}

// invoke runs the consumer. A killed one returns, too, and its answer does not count.
func (w *world) invoke(p *process, consumer *cdcconsumer.Consumer, shard int, batch []record) (events.KinesisEventResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), functionTimeout)
	defer cancel()
	w.mu.Lock()
	p.kill = cancel
	w.mu.Unlock()
	var event events.KinesisEvent
	for _, r := range batch {
		event.Records = append(event.Records, events.KinesisEventRecord{
			EventID: fmt.Sprintf("shardId-%012d:%s", shard, r.sequence), EventSourceArn: "arn:aws:kinesis:us-east-1:000000000000:stream/simulated",
			Kinesis: events.KinesisRecord{
				Data: r.data, PartitionKey: r.key, SequenceNumber: r.sequence,
				ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: r.arrival},
			},
		})
	}
	return consumer.Handle(ctx, event)
}

// checkpoint returns how many records of the batch are done. Lambda takes the lowest failed record of the answer.
func checkpoint(batch []record, answer events.KinesisEventResponse) int {
	done := len(batch)
	for _, failure := range answer.BatchItemFailures {
		place := slices.IndexFunc(batch, func(r record) bool { return r.sequence == failure.ItemIdentifier })
		done = min(done, max(place, 0)) // an unknown record fails the whole batch
	}
	return done
}
