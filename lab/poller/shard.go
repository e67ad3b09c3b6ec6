package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// record is one record as the function gets it.
type record struct {
	sequenceNumber string
	arrival        time.Time
	json           []byte // an events.KinesisEventRecord
	done           bool   // guarded by shard.mu
}

// shard reads one shard and hands its records to lanes, which deliver them.
type shard struct {
	poller *Poller
	id     string
	after  string // sequence number of the last record read
	lanes  []*lane

	mu       sync.Mutex
	inFlight []*record // read and not below the checkpoint, in the order of the shard
}

// newShard continues at the checkpoint, or begins at the horizon.
func (p *Poller) newShard(id string) *shard {
	s := &shard{poller: p, id: id, after: p.checkpoints.get(id).SequenceNumber}
	for range p.config.ParallelizationFactor {
		s.lanes = append(s.lanes, &lane{shard: s, input: make(chan []*record, 1)})
	}
	return s
}

// run returns when the shard is closed and everything in it delivered, or when ctx ends, or with an error when the stream is gone.
func (s *shard) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lanes sync.WaitGroup
	for _, l := range s.lanes {
		lanes.Go(func() { l.run(ctx) })
	}
	closed, err := s.read(ctx)
	for _, l := range s.lanes {
		close(l.input)
	}
	if !closed {
		cancel()
	}
	lanes.Wait()
	if closed && ctx.Err() == nil {
		return s.poller.checkpoints.set(s.id, checkpoint{Finished: true})
	}
	return err
}

// read hands out records until the shard is closed. It reads ahead only so far, because it waits
// for the slowest lane.
func (s *shard) read(ctx context.Context) (closed bool, err error) {
	var saved time.Time
	for iterator := ""; ; {
		polled := time.Now()
		var stored <-chan struct{}
		if s.poller.config.Stored != nil {
			stored = s.poller.config.Stored() // before the read, so that what it misses wakes
		}
		var out *kinesis.GetRecordsOutput
		err := s.poller.retry(ctx, "reading shard "+s.id, func(ctx context.Context) (err error) {
			if iterator == "" {
				if iterator, err = s.position(ctx); err != nil {
					return err
				}
			}
			out, err = s.poller.config.Kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: &iterator})
			// An iterator lives for five minutes, and ends with the service that made it.
			_, expired := errors.AsType[*types.ExpiredIteratorException](err)
			_, invalid := errors.AsType[*types.InvalidArgumentException](err)
			if expired || invalid {
				iterator = ""
			}
			return err
		})
		if err != nil || ctx.Err() != nil {
			return false, err
		}
		if err := s.dispatch(ctx, out.Records); err != nil || ctx.Err() != nil {
			return false, err
		}
		if out.NextShardIterator == nil {
			return true, nil
		}
		iterator = *out.NextShardIterator
		interval := s.poller.config.PollInterval
		next := polled.Add(interval)
		if stored != nil {
			// Kinesis counts reads over a second. Those that a rest has saved go to what follows the record that ended it, because
			// events come in bursts. Otherwise all but the first would wait for the whole interval.
			saved = latest(saved.Add(interval), polled.Add(-3*interval))
			next = latest(saved, polled.Add(interval/4))
		}
		if !wait(ctx, time.Until(next)) {
			return false, nil
		}
		if stored != nil && len(out.Records) == 0 && !waitFor(ctx, restInterval, stored) {
			return false, nil
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// restInterval is how long a shard rests that is woken when there is something to read. An iterator lives longer.
const restInterval = 10 * time.Second

// position makes an iterator behind the last record read.
func (s *shard) position(ctx context.Context) (string, error) {
	in := &kinesis.GetShardIteratorInput{StreamName: &s.poller.config.Stream, ShardId: &s.id, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	if s.after != "" {
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &s.after
	}
	out, err := s.poller.config.Kinesis.GetShardIterator(ctx, in)
	if _, invalid := errors.AsType[*types.InvalidArgumentException](err); invalid && s.after != "" {
		// The number is trimmed, or of a stream that was deleted and made again under this name.
		s.poller.config.Log.WarnContext(ctx, "the checkpoint is not in the stream: reading from its horizon", "hop", 5, "shard", s.id,
			"sequence_number", s.after, "error", err.Error())
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeTrimHorizon, nil
		out, err = s.poller.config.Kinesis.GetShardIterator(ctx, in)
	}
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ShardIterator), nil
}

// dispatch gives each record to the lane of its partition key.
func (s *shard) dispatch(ctx context.Context, records []types.Record) error {
	perLane := make([][]*record, len(s.lanes))
	for _, r := range records {
		made, err := s.newRecord(r)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.inFlight = append(s.inFlight, made)
		s.mu.Unlock()
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(aws.ToString(r.PartitionKey)))
		lane := hash.Sum32() % uint32(len(s.lanes))
		perLane[lane] = append(perLane[lane], made)
		s.after = made.sequenceNumber
	}
	for i, batch := range perLane {
		if len(batch) == 0 {
			continue
		}
		select {
		case s.lanes[i].input <- batch:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (s *shard) newRecord(r types.Record) (*record, error) {
	sequenceNumber := aws.ToString(r.SequenceNumber)
	data, err := json.Marshal(events.KinesisEventRecord{
		AwsRegion:         s.poller.config.Kinesis.Options().Region,
		EventID:           s.id + ":" + sequenceNumber,
		EventName:         "aws:kinesis:record",
		EventSource:       "aws:kinesis",
		EventSourceArn:    s.poller.streamARN,
		EventVersion:      "1.0",
		InvokeIdentityArn: "arn:aws:iam::" + s.poller.account + ":role/local",
		Kinesis: events.KinesisRecord{
			ApproximateArrivalTimestamp: events.SecondsEpochTime{Time: aws.ToTime(r.ApproximateArrivalTimestamp)},
			Data:                        r.Data,
			PartitionKey:                aws.ToString(r.PartitionKey),
			SequenceNumber:              sequenceNumber,
			KinesisSchemaVersion:        "1.0",
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding record %s: %w", sequenceNumber, err)
	}
	return &record{sequenceNumber: sequenceNumber, arrival: aws.ToTime(r.ApproximateArrivalTimestamp), json: data}, nil
}

// finish moves the checkpoint over every record below which nothing is left. Lanes finish in any order.
func (s *shard) finish(ctx context.Context, records []*record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		r.done = true
	}
	reached := ""
	for len(s.inFlight) > 0 && s.inFlight[0].done {
		reached = s.inFlight[0].sequenceNumber
		s.inFlight = s.inFlight[1:]
	}
	if reached == "" {
		return
	}
	if err := s.poller.checkpoints.set(s.id, checkpoint{SequenceNumber: reached}); err != nil {
		// An old checkpoint brings records again, and loses none.
		s.poller.config.Log.ErrorContext(ctx, "keeping the checkpoint", "hop", 5, "shard", s.id, "error", err.Error())
	}
}
