// Package poller is Lambda's event source mapping for a Kinesis stream, on a local machine.
// Batches, partial answers, bisecting, retry and age limits, on-failure messages and
// parallelization factor behave as Lambda's do.
//
// In: a stream behind the AWS SDK, and a function that takes an event's JSON and returns an
// answer's. Out: invocations, in order per shard (per partition key with a parallelization factor),
// and a checkpoint file that survives kill -9.
//
// The mapping is one with FunctionResponseTypes ReportBatchItemFailures and StartingPosition
// TRIM_HORIZON, because LATEST would lose events. There is one known difference. Lambda polls a shard once a second. The poller polls as often as Kinesis allows,
// because nobody wants to wait on a laptop. If the stream can say when it has stored something, a
// shard with nothing to read is not polled until then.
//
// QueuePoller is the mapping for an SQS queue.
package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"golang.org/x/sync/errgroup"
)

// Config of a Poller. Kinesis, Stream, Function and Log are required. The defaults of the rest are
// Lambda's where it has any.
type Config struct {
	Kinesis *kinesis.Client
	Stream  string // name
	// Function is invoked with the JSON of an events.KinesisEvent, such as Handler makes of a
	// handler. Its context ends with FunctionTimeout, and one second after Run's. Lambda kills a
	// function then. The poller waits for it.
	Function func(ctx context.Context, payload []byte) ([]byte, error)
	Log      *slog.Logger

	// BatchSize is how many records an invocation gets at most, 1 to 10,000. Default 100. A payload
	// never exceeds 6 MB.
	BatchSize int
	// Window is how long to wait for a full batch, up to 300 s. Default 0: invoke with what is there.
	Window time.Duration
	// ParallelizationFactor is how many batches of a shard are under way at once, 1 to 10. Default
	// 1. With more than one, order is kept per partition key and not per shard.
	ParallelizationFactor int
	// BisectOnError splits a batch whose invocation failed in halves, and one that failed in part at the returned number.
	BisectOnError bool
	// MaxRetries is after how many retries a batch is discarded, 0 to 10,000. The default nil means
	// never (Lambda's -1).
	MaxRetries *int
	// MaxRecordAge is the age at which a record is discarded. Default 0: never (Lambda's -1).
	MaxRecordAge time.Duration
	// OnFailure is the URL of the SQS queue that is told what was discarded. It needs SQS. By
	// default nobody is told.
	OnFailure string
	SQS       *sqs.Client
	// FunctionTimeout is the function's, up to 15 min. The default is 30 s.
	FunctionTimeout time.Duration
	// PollInterval is the time between two GetRecords of a shard. Default 200 ms, because Kinesis
	// allows five a second.
	PollInterval time.Duration
	// Stored returns a channel that is closed when the stream next stores records, such as
	// awslocal's. Until then a shard with nothing to read is polled every 10 s. By default it is
	// polled every PollInterval, because Kinesis has no such signal.
	Stored func() <-chan struct{}
	// CheckpointFile keeps the position between runs. Without it every run begins at the horizon.
	CheckpointFile string
}

// Poller polls one stream. Run it once.
type Poller struct {
	config      Config
	checkpoints *checkpoints
	streamARN   string
	account     string // in the ARN
}

// New checks the configuration and reads the checkpoint file. An error names the wrong field.
func New(config Config) (*Poller, error) {
	config.BatchSize = cmp.Or(config.BatchSize, 100)
	config.ParallelizationFactor = cmp.Or(config.ParallelizationFactor, 1)
	config.FunctionTimeout = cmp.Or(config.FunctionTimeout, 30*time.Second)
	config.PollInterval = cmp.Or(config.PollInterval, 200*time.Millisecond)
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	checkpoints, err := openCheckpoints(config.CheckpointFile, config.Stream)
	if err != nil {
		return nil, fmt.Errorf("poller: Config.CheckpointFile: %w", err)
	}
	return &Poller{config: config, checkpoints: checkpoints}, nil
}

func (c Config) validate() error {
	switch {
	case c.Kinesis == nil:
		return errors.New("Config.Kinesis is missing: set it to a *kinesis.Client")
	case c.Stream == "":
		return errors.New("Config.Stream is missing: set it to the name of the stream")
	case c.Function == nil:
		return errors.New("Config.Function is missing")
	case c.Log == nil:
		return errors.New("Config.Log is missing")
	case c.BatchSize < 1 || c.BatchSize > 10_000:
		return fmt.Errorf("Config.BatchSize is %d: set it to 1..10000", c.BatchSize)
	case c.Window < 0 || c.Window > 300*time.Second:
		return fmt.Errorf("Config.Window is %s: set it to 0..300s", c.Window)
	case c.ParallelizationFactor < 1 || c.ParallelizationFactor > 10:
		return fmt.Errorf("Config.ParallelizationFactor is %d: set it to 1..10", c.ParallelizationFactor)
	case c.MaxRetries != nil && (*c.MaxRetries < 0 || *c.MaxRetries > 10_000):
		return fmt.Errorf("Config.MaxRetries is %d: set it to 0..10000, or to nil for no limit", *c.MaxRetries)
	case c.MaxRecordAge < 0:
		return fmt.Errorf("Config.MaxRecordAge is %s: set it to 0 for no limit, or to more", c.MaxRecordAge)
	case c.OnFailure != "" && c.SQS == nil:
		return errors.New("Config.SQS is missing: Config.OnFailure needs it")
	case c.FunctionTimeout < 0 || c.FunctionTimeout > 15*time.Minute:
		return fmt.Errorf("Config.FunctionTimeout is %s: set it to at most 15m", c.FunctionTimeout)
	case c.PollInterval < 0:
		return fmt.Errorf("Config.PollInterval is %s: set it to 0 for the default, or to more", c.PollInterval)
	}
	return nil
}

// Run polls until ctx ends and then returns nil. It survives throttles, expired iterators and a
// service that is away for a while. It returns an error for a stream that does not exist.
func (p *Poller) Run(ctx context.Context) error {
	if err := p.retry(ctx, "describing the stream", p.describe); err != nil || ctx.Err() != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.runShards(ctx, group) })
	return group.Wait()
}

// runShards starts each shard once its parents are read to the end, because a key's records before
// a split or merge come first.
func (p *Poller) runShards(ctx context.Context, group *errgroup.Group) error {
	running := map[string]bool{}
	finished := make(chan struct{})
	for {
		var shards []types.Shard
		err := p.retry(ctx, "listing the shards", func(ctx context.Context) (err error) {
			shards, err = p.listShards(ctx)
			return err
		})
		if err != nil || ctx.Err() != nil {
			return err
		}
		for _, listed := range shards {
			if running[aws.ToString(listed.ShardId)] || !p.checkpoints.mayStart(listed, shards) {
				continue
			}
			s := p.newShard(aws.ToString(listed.ShardId))
			running[s.id] = true
			group.Go(func() error {
				err := s.run(ctx)
				select {
				case finished <- struct{}{}:
				case <-ctx.Done():
				}
				return err
			})
		}
		// Only the end of a shard brings new ones.
		select {
		case <-finished:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Poller) describe(ctx context.Context) error {
	out, err := p.config.Kinesis.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &p.config.Stream})
	if err != nil {
		return err
	}
	p.streamARN = aws.ToString(out.StreamDescriptionSummary.StreamARN)
	parsed, _ := arn.Parse(p.streamARN) // an emulator's may have none
	p.account = parsed.AccountID
	return nil
}

func (p *Poller) listShards(ctx context.Context) (shards []types.Shard, err error) {
	in := &kinesis.ListShardsInput{StreamName: &p.config.Stream}
	for {
		out, err := p.config.Kinesis.ListShards(ctx, in)
		if err != nil {
			return nil, err
		}
		shards = append(shards, out.Shards...)
		if out.NextToken == nil {
			return shards, nil
		}
		in = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}

// retry calls try until it succeeds or ctx ends, and then returns nil. It returns an error only for
// a missing stream. Everything else may pass, as when a listener is started again.
func (p *Poller) retry(ctx context.Context, what string, try func(context.Context) error) error {
	for failures := 0; ; failures++ {
		err := try(ctx)
		if err == nil {
			return nil
		}
		var missing *types.ResourceNotFoundException
		if errors.As(err, &missing) {
			return fmt.Errorf("%s: stream %s: %w", what, p.config.Stream, err)
		}
		if ctx.Err() == nil {
			p.config.Log.WarnContext(ctx, what, "hop", 5, "stream", p.config.Stream, "error", err.Error())
		}
		if !wait(ctx, backoff(failures)) {
			return nil
		}
	}
}

// backoff is the time after the given number of failures in a row, from 0. Lambda's own is not documented.
func backoff(failures int) time.Duration {
	return min(100*time.Millisecond<<min(failures, 6), 5*time.Second)
}

// wait returns false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool { return waitFor(ctx, d, nil) }

// waitFor is wait that also ends when woken is closed.
func waitFor(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-woken:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
