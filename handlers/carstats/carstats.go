// Package carstats is an example of a subscriber. It keeps totals of the cars per make and year, and counts no event twice (after ⑥).
//
// In: batches of an SQS queue that a rule of the bus fills with the events of cars. Out: tables car_stats and car_stats_car, and the
// messages that failed, which SQS delivers again and after some receives moves to the subscriber's failure queue.
//
// Neither EventBridge nor a standard queue keeps order, and both deliver at least once. So both totals need package inbox:
//
//   - changes counts events. The count does not tell whether an event is in it already, so it needs each event exactly once.
//   - cars counts cars as they are now. An event carries its whole car, so applying an event twice does no harm. Applying an older event
//     after a newer one would, and after a deletion it would bring the car back. The inbox's verdict Late prevents that. Missing events
//     (Gap) do no harm here, because the newer event carries the whole car. When they come they are Late, and count as changes.
//
// That holds because all event types that the rule lets through carry the whole car. A type that says less (CarRepainted) would make later
// events Late without having their content. So an unknown type fails here, and never counts as processed.
//
// With Config.InOrder the totals are counted in the order of the versions, and nothing is counted before what came before it. Then the
// verdicts Gap and Late do not occur, and an event that is lost holds its successors until it is replayed. This is for subscribers whose
// events say only what changed. Here both ways lead to the same totals.
//
// There is no code for messages that can never be processed. In a stream such a record would block its shard, so cdcConsumer parks it. In
// a queue the other messages go on, and the queue's redrive policy parks it.
package carstats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/emf"
	"rds-outbox-demo/internal/pgsession"
)

// subscriber is its name in table inbox. Under another name every event would be new.
const subscriber = "carstats"

// Config of a Subscriber. Pool and Logger are required.
type Config struct {
	Pool   Pool
	Logger *slog.Logger
	// FunctionName is the dimension of the metrics. Default carStats.
	FunctionName string
	// InOrder counts every version of a car in order (inbox.InOrder). Call Handle with an empty batch once a minute then.
	InOrder bool
	// Ordered are the limits of InOrder. Its Name is not used.
	Ordered inbox.Ordered
	// Ask is called for versions that do not come, after they are logged and until they are given up. Optional.
	Ask func(context.Context, inbox.Missing) error
}

// Pool lends connections: *pgxpool.Pool, or *rdsdb.Pool, which survives a change of the password.
type Pool interface {
	Acquire(context.Context) (*pgxpool.Conn, error)
}

// Subscriber counts batches. It keeps nothing between them and is safe for concurrent use.
type Subscriber struct{ config Config }

// New checks the configuration. It asks nothing of the database before the first batch.
func New(config Config) (*Subscriber, error) {
	switch {
	case config.Pool == nil:
		return nil, errors.New("carstats: Config.Pool is nil: give it a *pgxpool.Pool or a *rdsdb.Pool")
	case config.Logger == nil:
		return nil, errors.New("carstats: Config.Logger is nil: give it the program's logger")
	}
	config.FunctionName = cmp.Or(config.FunctionName, "carStats")
	config.Ordered.Name = subscriber
	return &Subscriber{config}, nil
}

// Handle counts one batch, each message in a transaction of its own. Give it to lambda.Start. Its answer names the messages that failed
// or for which there was no time, and Lambda deletes the others. The event source mapping needs FunctionResponseTypes ReportBatchItemFailures. Without it Lambda does not
// read the answer and deletes all messages, so failed ones are never counted. An unreachable database is an error of the whole batch,
// because only then does Lambda poll less.
//
// A batch without messages, which is what Lambda makes of the event of a schedule, asks for what is missing.
func (s *Subscriber) Handle(ctx context.Context, batch events.SQSEvent) (response events.SQSEventResponse, err error) {
	started := time.Now()
	conn, err := s.config.Pool.Acquire(ctx)
	if err != nil {
		err = fmt.Errorf("connecting to the database: %w", err)
		s.config.Logger.LogAttrs(ctx, slog.LevelError, "car stats", slog.Int("hop", 6), slog.Int("messages", len(batch.Records)),
			slog.String("error", err.Error()))
		return events.SQSEventResponse{}, err
	}
	defer conn.Release()
	if len(batch.Records) == 0 || !s.config.InOrder {
		if err := pgsession.Replan(ctx, conn.Conn(), func() error { return s.lookAtHeld(ctx, conn) }); err != nil {
			s.config.Logger.LogAttrs(ctx, slog.LevelError, "car stats", slog.Int("hop", 6), slog.Int("messages", len(batch.Records)),
				slog.String("error", err.Error()))
			return events.SQSEventResponse{}, err
		}
	}
	if len(batch.Records) == 0 {
		return events.SQSEventResponse{}, nil
	}
	done := tally{verdicts: map[inbox.Verdict]int{}}
	// It also logs when the connection breaks in the middle, because the messages before that are committed.
	defer func() { s.logBatch(ctx, len(batch.Records), done, time.Since(started)) }()
	for i, message := range batch.Records {
		if i > 0 && nearlyOver(ctx) {
			for _, rest := range batch.Records[i:] {
				done.failed++
				response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: rest.MessageId})
			}
			break
		}
		event, verdict, err := s.process(ctx, conn, message)
		if err != nil {
			done.failed++
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: message.MessageId})
			s.logFailure(ctx, message, event, err)
			if conn.Conn().IsClosed() {
				// The other messages would fail, too. Lambda would take an answer that names them for a success, and go on as fast as
				// before. After an error of the batch it polls less. The messages that were counted come again as duplicates.
				return events.SQSEventResponse{}, fmt.Errorf("the database ended the connection: %w", err)
			}
			continue
		}
		done.verdicts[verdict]++
		if id := event.TraceID(); id != "" {
			done.traces = append(done.traces, id)
		}
	}
	return response, nil
}

// nearlyOver reports whether the function's time may not suffice for another message. A function that runs into its timeout answers
// nothing. All of its messages then come again, and each time bring even those that were counted closer to the failure queue.
func nearlyOver(ctx context.Context) bool {
	const reserve = time.Second
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < reserve
}

// tally is what became of the messages of a batch.
type tally struct {
	verdicts map[inbox.Verdict]int
	failed   int
	traces   []string // of those that did not fail
}

// logBatch writes the one line of the batch, which is its metrics, too.
func (s *Subscriber) logBatch(ctx context.Context, messages int, done tally, took time.Duration) {
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "car stats",
		slog.Int("hop", 6),
		slog.String("FunctionName", s.config.FunctionName),
		slog.Int("messages", messages),
		slog.Int("new", done.verdicts[inbox.New]),
		slog.Int("duplicates", done.verdicts[inbox.Duplicate]),
		slog.Int("gaps", done.verdicts[inbox.Gap]),
		slog.Int("late", done.verdicts[inbox.Late]),
		slog.Int("failed", done.failed),
		slog.Int("held", done.verdicts[inbox.Held]),
		slog.Int64("duration_ms", took.Milliseconds()),
		slog.Any("trace_ids", done.traces),
		emf.Directive(time.Now(), []string{"FunctionName"},
			emf.Metric{Name: "duplicates", Unit: emf.Count}, emf.Metric{Name: "gaps", Unit: emf.Count}, emf.Metric{Name: "late", Unit: emf.Count}))
}

// logFailure names the message, and its event as far as it could be read.
func (s *Subscriber) logFailure(ctx context.Context, message events.SQSMessage, event inbox.Event, err error) {
	attributes := []slog.Attr{
		slog.Int("hop", 6),
		slog.String("message_id", message.MessageId),
		slog.String("receive_count", message.Attributes["ApproximateReceiveCount"]),
		slog.String("error", err.Error()),
	}
	if event.ID != uuid.Nil {
		attributes = append(attributes, slog.String("event_id", event.ID.String()), slog.String("trace_id", event.TraceID()))
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "car stats: a message failed", attributes...)
}

// process counts one message, or changes nothing. A panic fails its message only, and the others of the batch go on.
func (s *Subscriber) process(ctx context.Context, conn *pgxpool.Conn, message events.SQSMessage) (event inbox.Event, verdict inbox.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	event, err = inbox.ParseEvent([]byte(message.Body))
	if err != nil {
		return event, "", err
	}
	// Also before an event is held. Otherwise one that cannot be counted fails later, together with the event that releases it.
	change, err := readChange(event)
	if err != nil {
		return event, "", fmt.Errorf("event %s: %w", event.ID, err)
	}
	err = pgsession.Replan(ctx, conn.Conn(), func() error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			db, added := dbgen.New(tx), sums{}
			if s.config.InOrder {
				verdict, err = inbox.InOrder(ctx, tx, s.config.Ordered, event, func(ctx context.Context, e inbox.Event) error {
					change, err := readChange(e)
					if err != nil {
						return fmt.Errorf("event %s: %w", e.ID, err)
					}
					return change.count(ctx, db, inbox.New, added)
				})
			} else {
				verdict, err = inbox.Once(ctx, tx, inbox.Subscriber{Name: subscriber, Policy: inbox.Apply}, event,
					func(ctx context.Context, verdict inbox.Verdict) error { return change.count(ctx, db, verdict, added) })
			}
			if err != nil {
				return err
			}
			return added.add(ctx, db)
		})
	})
	if err != nil {
		return event, "", fmt.Errorf("counting event %s: %w", event.ID, err)
	}
	return event, verdict, nil
}
