package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// Writers do what the API does not. Their transactions last long, are large or are rolled back, and
// some write poison.
var writerTrials = []trial{
	{kind: "writer-long-transaction", try: unusual(longTransaction)},
	{kind: "writer-large-transaction", try: unusual(largeTransaction)},
	{kind: "writer-rollback", try: unusual(rolledBack)},
	{kind: "writer-prepared-transaction", try: prepared(lasting)},
	{kind: "poison-record", try: func(ctx context.Context, r *round, _ *rand.Rand) error { return r.putPoison(ctx) }},
	{kind: "poison-event", try: poisonEvent},
}

var errRollback = errors.New("rolled back on purpose")

// transaction appends events to notes, and tells the history what became of them.
type transaction struct {
	tx     pgx.Tx
	random *rand.Rand
	events []uuid.UUID
}

// append appends an event and makes its id.
func (t *transaction) append(ctx context.Context, event outbox.Event) (err error) {
	if event.ID, err = uuid.NewV7(); err != nil {
		return err
	}
	t.events = append(t.events, event.ID)
	return outbox.Append(ctx, t.tx, event)
}

func (t *transaction) appendNote(ctx context.Context, kind string, note uuid.UUID, version int64) error {
	return t.append(ctx, outbox.Event{
		AggregateType: "Note", AggregateID: note.String(), AggregateVersion: version, Type: kind, Data: fmt.Appendf(nil, `{"version":%d}`, version),
	})
}

// unusual runs work in a transaction again until one has been committed or rolled back as work
// wanted it. The history has what became of each try.
func unusual(work func(context.Context, *round, *transaction) error) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, random *rand.Rand) error {
		for {
			t := &transaction{random: random}
			committing := false
			span := judge.Span{Began: r.history.moment()}
			err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
				t.tx = tx
				err := work(ctx, r, t)
				committing = err == nil
				return err
			})
			outcome := judge.Committed
			switch {
			case err != nil && committing:
				outcome = judge.MaybeCommit
			case err != nil:
				outcome = judge.RolledBack
			default:
				span.Ended = r.history.moment()
			}
			r.note(t, outcome, span)
			if err == nil || errors.Is(err, errRollback) {
				return nil
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// note records in the history how the transaction ended.
func (r *round) note(t *transaction, outcome string, span judge.Span) {
	r.history.add(func() {
		for _, id := range t.events {
			r.history.known.Written = append(r.history.known.Written, judge.Written{EventID: id, Outcome: outcome, Span: span})
		}
	})
}

// longTransaction commits rows that are older than everything that was committed meanwhile. A relay
// that goes by ids or times misses them.
func longTransaction(ctx context.Context, _ *round, t *transaction) error {
	note := uuid.New()
	if err := t.appendNote(ctx, "NoteTaken", note, 1); err != nil {
		return err
	}
	if err := sleep(ctx, between(t.random, time.Second, 3*time.Second)); err != nil {
		return err
	}
	return t.appendNote(ctx, "NoteChanged", note, 2)
}

func largeTransaction(ctx context.Context, _ *round, t *transaction) error {
	for range 20 {
		note := uuid.New()
		for version := range int64(25) {
			if err := t.appendNote(ctx, "NoteChanged", note, version+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// rolledBack takes the next version of a hot car, and gives it back.
func rolledBack(ctx context.Context, r *round, t *transaction) error {
	if err := t.appendNote(ctx, "NoteTaken", uuid.New(), 1); err != nil {
		return err
	}
	id := r.clients.hot[t.random.IntN(len(r.clients.hot))]
	var version int64
	if err := t.tx.QueryRow(ctx, domain.NextVersion, id).Scan(&version); err != nil {
		return err
	}
	err := t.append(ctx, outbox.Event{
		AggregateType: domain.AggregateType, AggregateID: id, AggregateVersion: version, Type: domain.Updated, Data: []byte(`{}`),
	})
	if err != nil {
		return err
	}
	if err := sleep(ctx, between(t.random, 0, 300*time.Millisecond)); err != nil {
		return err
	}
	return errRollback
}

// putPoison puts a record on the stream that can never be an event.
func (r *round) putPoison(ctx context.Context) error {
	token := r.history.token("")
	payload := local.Poison(token)
	if rand.IntN(2) == 0 {
		payload = []byte("\x00\xff not a record of DMS " + token)
	}
	// The call goes on until it is answered, even when ctx has ended. A record that may or may not
	// be on the stream could not be judged.
	putting := context.WithoutCancel(ctx)
	return r.await(putting, "the stream to take poison", func(context.Context) error {
		err := r.PutRecord(putting, token, payload)
		if err == nil {
			r.history.add(func() { r.history.known.Poison = append(r.history.known.Poison, judge.Poison{Payload: payload}) })
		}
		return err
	})
}

// poisonEvent creates a car whose event the bus refuses, and then changes it, which makes an event
// that the bus takes. That successor must go on.
func poisonEvent(ctx context.Context, r *round, _ *rand.Rand) error {
	// A create without an answer may have been made all the same. Then its event is poison like any
	// other with the mark.
	id, err := surely(ctx, func() string { return r.clients.create(ctx, poisonMark) })
	if err == nil {
		r.clients.change(ctx, id, "")
	}
	return err
}

// writeNote commits an event of this age to a table that is outbox, or stands for it, and returns a position after its commit.
func (r *round) writeNote(ctx context.Context, table, payload string, age time.Duration) (id uuid.UUID, behind string, err error) {
	if id, err = uuid.NewV7(); err != nil {
		return id, "", err
	}
	written := judge.Written{EventID: id, Outcome: judge.Committed, Span: judge.Span{Began: r.history.moment()}}
	err = r.await(ctx, "an event", func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, `INSERT INTO `+table+` (id, aggregate_type, aggregate_id, aggregate_version, event_type, `+payload+`, created_at)
			VALUES ($1, 'Note', $2, 1, 'NoteTaken', '{}', now() - $3::interval) ON CONFLICT DO NOTHING`, id, id.String(), age)
		if err != nil {
			return err
		}
		return r.pool.QueryRow(ctx, "SELECT pg_logical_emit_message(false, 'chaos', '')::text").Scan(&behind)
	})
	if err != nil {
		return id, "", err
	}
	written.Span.Ended = r.history.moment()
	r.history.add(func() { r.history.known.Written = append(r.history.known.Written, written) })
	return id, behind, nil
}
