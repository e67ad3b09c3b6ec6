package view

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/handlers/cdcconsumer"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/local"
	"rds-outbox-demo/outbox"
)

// askBaseline finds out what earlier runs have left on the way, once, and again when a recount has found rows that nobody expected. A row
// has arrived when the subscriber's inbox knows it, or when it is in the bus's journal, or in the failure queue. The journal alone is not
// enough: it is bounded. The inbox alone neither: the subscriber does not hear of every type, and not at once.
func (l *live) askBaseline(ctx context.Context, conn *pgx.Conn) error {
	l.mu.Lock()
	begun, again := l.ledger.begun, !l.tables.recounted.IsZero()
	l.mu.Unlock()
	if begun {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, baselineTimeout)
	defer cancel()
	before := l.began
	if again {
		before = time.Now()
	}
	found, cars, err := l.lookBack(ctx, conn, before)
	if err != nil {
		return fmt.Errorf("counting what earlier runs have left: %w", err)
	}
	l.note(func(now time.Time) {
		l.ledger.begin(found)
		l.tables.carsBefore, l.tables.recounted = cars, now
		l.tables.marker = nil
	})
	return nil
}

func (l *live) lookBack(ctx context.Context, conn *pgx.Conn, before time.Time) (found baseline, cars int64, err error) {
	found.before = before
	// Polls are to be short, and to read little. This is neither.
	if _, err := conn.Exec(ctx, "SET statement_timeout = "+milliseconds(baselineTimeout)+"; SET enable_seqscan = on"); err != nil {
		return found, 0, err
	}
	if err := conn.QueryRow(ctx, selectHorizon).Scan(&found.final, nil, nil, nil); err != nil {
		return found, 0, err
	}
	if found.rows, cars, err = countRows(ctx, conn, found.final); err != nil {
		return found, 0, err
	}
	// Of a bus that is the user's own there is no journal here: what was committed before counts as arrived.
	ownBus := l.stack.CanBreak(local.EventBridge) != nil
	arrived, whole := map[uint64]bool(nil), false
	if !ownBus {
		if arrived, whole, err = l.arrivedBefore(before); err != nil {
			return found, 0, err
		}
	}
	known := "EXISTS (SELECT FROM inbox AS i WHERE i.subscriber = 'carstats' AND i.event_id = o.id AND i.processed_at < $2)"
	switch {
	case ownBus:
		known = "o.created_at < $2"
	case !whole:
		// What the journal has forgotten, and the subscriber does not hear of, nobody can tell: it is not called lost.
		known = "(o.aggregate_type <> 'Car' OR " + known + ")"
	}
	if err := found.compare(ctx, conn, before, arrived, known); err != nil {
		return found, 0, err
	}
	_, err = conn.Exec(ctx, "RESET statement_timeout; RESET enable_seqscan") // to the connection's parameters
	return found, cars, err
}

// compare looks for the rows of seconds before final that have not arrived, and for those of later seconds that have. What has arrived since
// before is left to the observer.
func (b *baseline) compare(ctx context.Context, conn *pgx.Conn, before time.Time, arrived map[uint64]bool, known string) error {
	b.missing, b.here = map[int64][]uint64{}, map[int64][]uint64{}
	for _, part := range []struct {
		sql  string
		into map[int64][]uint64
		want bool // arrived, or not
	}{
		{"created_at < to_timestamp($1) AND NOT " + known, b.missing, false},
		{"created_at >= to_timestamp($1)", b.here, true},
	} {
		found, err := conn.Query(ctx, "SELECT o.id, floor(extract(epoch FROM o.created_at))::bigint, "+known+" FROM outbox AS o WHERE "+part.sql,
			float64(b.final), before)
		if err != nil {
			return err
		}
		var id uuid.UUID
		var at int64
		var isKnown bool
		_, err = pgx.ForEachRow(found, []any{&id, &at, &isKnown}, func() error {
			if (isKnown || arrived[short(id)]) == part.want {
				part.into[at] = append(part.into[at], short(id))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// arrivedBefore returns the ids that the journal has from before a time, and those in the failure queue. What the journal says about
// duplicates and order it notes in the ledger, unless the ledger has seen more than the journal still has.
func (l *live) arrivedBefore(before time.Time) (_ map[uint64]bool, whole bool, err error) {
	arrived := map[uint64]bool{}
	var order order
	duplicates, outOfOrder := int64(0), int64(0)
	whole, err = l.stack.ReadBus(func(e awslocal.BusEvent) error {
		if !e.Accepted.Before(before) {
			return errEnough
		}
		id, aggregate, version := identity(e.Detail)
		switch {
		case id == uuid.Nil:
		case arrived[short(id)]:
			duplicates++
		default:
			arrived[short(id)] = true
			if !order.next(aggregate, version) {
				outOfOrder++
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, false, err
	}
	var parked []outbox.Record
	err = l.stack.ReadParked(func(p cdcconsumer.ParkedRecord) error {
		record, skip, err := outbox.ParseRecord(p.Data)
		if err == nil && skip == outbox.SkipNothing && !arrived[short(record.Row.ID)] {
			parked = append(parked, record)
			arrived[short(record.Row.ID)] = true
		}
		return nil //nolint:nilerr // poison that is no event of ours
	})
	if err != nil {
		return nil, false, err
	}
	l.note(func(time.Time) {
		for _, record := range parked {
			l.ledger.parked[short(record.Row.ID)] = true
		}
		if whole || !l.ledger.seen() {
			l.ledger.duplicates, l.ledger.outOfOrder, l.ledger.order = duplicates, outOfOrder, order
		}
	})
	return arrived, whole, nil
}

var errEnough = errors.New("the rest is known")
