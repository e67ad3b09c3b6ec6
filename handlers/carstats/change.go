package carstats

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/contracts/eventtypes"
	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/inbox"
)

// kind is what cars are counted by.
type kind struct {
	make string
	year int32
}

// change is what one event says of its car.
type change struct {
	car     uuid.UUID
	is      kind // after the change, or before it for a deleted car
	deleted bool
}

// readChange takes make and year from the event. Each of these event types carries the whole car.
func readChange(e inbox.Event) (change, error) {
	data, err := eventtypes.Parse(e.Type, e.Data)
	if err != nil {
		return change{}, err
	}
	var c change
	switch data := data.(type) {
	case eventtypes.CarCreated:
		c.is, err = kindOf(data.Make, data.Year)
	case eventtypes.CarUpdated:
		c.is, err = kindOf(data.Make, data.Year)
	case eventtypes.CarDeleted:
		c.deleted = true
		c.is, err = kindOf(data.Make, data.Year)
	default:
		return change{}, fmt.Errorf("type %.100q is not one that the rule lets through: what it says of the car is unknown", e.Type)
	}
	if err != nil {
		return change{}, fmt.Errorf("reading eventData: %w", err)
	}
	if c.car, err = uuid.Parse(e.AggregateID); err != nil {
		return change{}, fmt.Errorf("aggregateId %.100q is no car's: %w", e.AggregateID, err)
	}
	return c, nil
}

// kindOf checks what parsing does not. A member that is missing has its zero value, and the contract sets no limit to a year.
func kindOf(make string, year int64) (kind, error) {
	switch {
	case make == "" || year == 0:
		return kind{}, errors.New("make or year is missing")
	case year != int64(int32(year)):
		return kind{}, errors.New("year is too large for a column of type integer")
	}
	return kind{make, int32(year)}, nil
}

// totals is what is added to the totals of one kind.
type totals struct{ cars, changes int64 }

// sums is what a transaction adds, by kind. It adds all at once at its end, because two transactions that each add several times lock the
// rows of the totals in any order, and can deadlock.
type sums map[kind]totals

// count counts the change, and the car under what it is now, unless what it is now was told by a later event already.
func (c change) count(ctx context.Context, db *dbgen.Queries, verdict inbox.Verdict, added sums) error {
	n := added[c.is]
	n.changes++
	added[c.is] = n
	if verdict == inbox.Late {
		return nil
	}
	return c.move(ctx, db, added)
}

// add adds them to the table.
func (s sums) add(ctx context.Context, db *dbgen.Queries) error {
	if len(s) == 0 {
		return nil
	}
	var in dbgen.CarStatsAddParams
	for k, n := range s {
		in.Makes, in.Years = append(in.Makes, k.make), append(in.Years, k.year)
		in.Cars, in.Changes = append(in.Cars, n.cars), append(in.Changes, n.changes)
	}
	if err := db.CarStatsAdd(ctx, in); err != nil {
		return fmt.Errorf("adding to the totals: %w", err)
	}
	return nil
}

// move subtracts the car from its old total and adds it to its new one. The inbox holds the car's lock, so nobody else moves it.
func (c change) move(ctx context.Context, db *dbgen.Queries, added sums) error {
	counted, err := db.CarStatsCarTake(ctx, c.car)
	switch {
	case err == nil:
		before := kind{counted.Make, counted.Year}
		n := added[before]
		n.cars--
		added[before] = n
	case !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("looking for the car: %w", err)
	}
	if c.deleted {
		return nil
	}
	n := added[c.is]
	n.cars++
	added[c.is] = n
	if err := db.CarStatsCarPut(ctx, dbgen.CarStatsCarPutParams{CarID: c.car, Make: c.is.make, Year: c.is.year}); err != nil {
		return fmt.Errorf("remembering the car: %w", err)
	}
	return nil
}
