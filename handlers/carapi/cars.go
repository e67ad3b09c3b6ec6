package carapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/contracts/eventtypes"
	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// createCar (POST /cars) writes the car and its event in one round trip, which the server runs as one transaction. With an
// Idempotency-Key it takes a few more.
func (a *api) createCar(r *http.Request) (answer, error) {
	now := a.timestamp()
	body, err := readJSON(r)
	if err != nil {
		return answer{}, err
	}
	key, err := a.keyOf(r, body)
	if err != nil {
		return answer{}, err
	}
	sent, err := readCar(body, now.Year()+1, true)
	if err != nil {
		return answer{}, err
	}
	create := func(db dbgen.DBTX, batch *outbox.Batch) (answer, error) {
		// The service makes the id, never a client. So the id of a deleted car does not come back.
		id, err := uuid.NewV7()
		if err != nil {
			return answer{}, fmt.Errorf("making a car id: %w", err)
		}
		car := dbgen.Car{ID: id, Version: 1, CreatedAt: now, UpdatedAt: now}
		sent.apply(&car)
		event, err := newEvent(car.ID, car.Version, eventtypes.CarCreated{
			CarID: car.ID, Make: car.Make, Model: car.Model, Year: int64(car.Year), Color: car.Color, CreatedAt: car.CreatedAt,
		}, traceparent(r))
		if err != nil {
			return answer{}, err
		}
		queries := dbgen.New(batch)
		if sabotage.On(sabotage.EventAfterCommit) {
			queries = dbgen.New(db) // outside of the batch it is a commit of its own
		}
		if err := queries.CarInsert(r.Context(), dbgen.CarInsertParams{
			ID: car.ID, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color, CreatedAt: car.CreatedAt,
		}); err != nil {
			return answer{}, err
		}
		return answer{
			status:   http.StatusCreated,
			location: "/cars/" + event.AggregateID,
			etag:     etag(car.Version),
			body:     carAnswer{Message: "Car created successfully", Car: carOf(car)},
			eventID:  event.ID,
		}, outbox.Append(r.Context(), batch, event)
	}

	var ans answer
	if key == nil {
		ans, err = a.inOneRoundTrip(r.Context(), create)
	} else {
		ans, err = a.inTransaction(r.Context(), key, create)
	}
	if err != nil {
		return answer{}, fmt.Errorf("writing a car and its event: %w", err)
	}
	return ans, nil
}

// inOneRoundTrip makes a change that reads nothing. Its batch is the transaction.
func (a *api) inOneRoundTrip(ctx context.Context, do change) (ans answer, err error) {
	err = a.withConn(ctx, func(conn *pgxpool.Conn) error {
		batch := &outbox.Batch{}
		if ans, err = do(conn, batch); err != nil {
			return err
		}
		failpoint.Hit(failpoint.APIBeforeCommit)
		if err := batch.Send(ctx, conn); err != nil {
			return err
		}
		failpoint.Hit(failpoint.APIAfterCommit)
		return nil
	})
	return ans, err
}

// updateCar (PATCH /cars/{id}) changes the fields that were sent. Every PATCH is an event, even one that changes nothing.
func (a *api) updateCar(r *http.Request) (answer, error) {
	id, err := pathID(r)
	if err != nil {
		return answer{}, err
	}
	body, err := readJSON(r)
	if err != nil {
		return answer{}, err
	}
	key, err := a.keyOf(r, body)
	if err != nil {
		return answer{}, err
	}
	ifMatch, err := readIfMatch(r)
	if err != nil {
		return answer{}, err
	}
	sent, err := readCar(body, a.timestamp().Year()+1, false)
	if err != nil {
		return answer{}, err
	}
	ans, err := a.inTransaction(r.Context(), key, func(tx dbgen.DBTX, batch *outbox.Batch) (answer, error) {
		car, err := lockCar(r.Context(), tx, id, ifMatch)
		if err != nil {
			return answer{}, err
		}
		sent.apply(&car)
		car, err = dbgen.New(tx).CarUpdate(r.Context(), dbgen.CarUpdateParams{
			ID: id, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color,
			UpdatedAt: a.timestamp(), // read under the lock, so that updatedAt is in the order of the versions
		})
		if err != nil {
			return answer{}, err
		}
		event, err := newEvent(car.ID, car.Version, eventtypes.CarUpdated{
			CarID: car.ID, Make: car.Make, Model: car.Model, Year: int64(car.Year), Color: car.Color,
			CreatedAt: car.CreatedAt.UTC(), UpdatedAt: car.UpdatedAt.UTC(),
		}, traceparent(r))
		if err != nil {
			return answer{}, err
		}
		return answer{
			status: http.StatusOK, etag: etag(car.Version), body: carAnswer{Car: carOf(car)}, eventID: event.ID,
		}, outbox.Append(r.Context(), batch, event)
	})
	if err != nil {
		return answer{}, fmt.Errorf("updating a car: %w", err)
	}
	return ans, nil
}

// deleteCar (DELETE /cars/{id}) removes the car. Its event is the car's last one, and has the next
// version like every other event.
func (a *api) deleteCar(r *http.Request) (answer, error) {
	id, err := pathID(r)
	if err != nil {
		return answer{}, err
	}
	// DELETE ignores its body, but a different body makes it a different request for its
	// Idempotency-Key.
	body, err := readBody(r)
	if err != nil {
		return answer{}, err
	}
	key, err := a.keyOf(r, body)
	if err != nil {
		return answer{}, err
	}
	ifMatch, err := readIfMatch(r)
	if err != nil {
		return answer{}, err
	}
	ans, err := a.inTransaction(r.Context(), key, func(tx dbgen.DBTX, batch *outbox.Batch) (answer, error) {
		car, err := lockCar(r.Context(), tx, id, ifMatch)
		if err != nil {
			return answer{}, err
		}
		car.Version++ // under the lock, which no other transaction gets before the row is gone
		event, err := newEvent(car.ID, car.Version, eventtypes.CarDeleted{
			CarID: car.ID, Make: car.Make, Model: car.Model, Year: int64(car.Year), Color: car.Color,
			CreatedAt: car.CreatedAt.UTC(), DeletedAt: a.timestamp(),
		}, traceparent(r))
		if err != nil {
			return answer{}, err
		}
		if err := dbgen.New(batch).CarDelete(r.Context(), id); err != nil {
			return answer{}, err
		}
		return answer{status: http.StatusNoContent, eventID: event.ID}, outbox.Append(r.Context(), batch, event)
	})
	if err != nil {
		return answer{}, fmt.Errorf("deleting a car: %w", err)
	}
	return ans, nil
}

// lockCar returns the car under its row lock, errNotFound, or errChanged. The lock comes before
// everything that depends on the row. Without it, two PATCHes that merge into the row they have read
// would undo each other's fields, and an If-Match would prove nothing.
func lockCar(ctx context.Context, tx dbgen.DBTX, id uuid.UUID, ifMatch precondition) (dbgen.Car, error) {
	car, err := dbgen.New(tx).CarLock(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		// 404 also when If-Match was sent, because a missing car is not a version conflict.
		return dbgen.Car{}, errNotFound
	}
	if err != nil {
		return dbgen.Car{}, err
	}
	return car, ifMatch.check(car.Version)
}

// timestamp is the clock's time as PostgreSQL stores it. With the nanoseconds left in, the answer and the event would show
// another time than the row.
func (a *api) timestamp() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// newEvent returns the event of a change, for the outbox. The Go type of data is the event type, so
// an event without a contract cannot be sent.
func newEvent(aggregate uuid.UUID, version int64, data eventtypes.EventData, traceparent string) (outbox.Event, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return outbox.Event{}, fmt.Errorf("making an event id: %w", err)
	}
	encoded, err := encode(data)
	if err != nil {
		return outbox.Event{}, fmt.Errorf("encoding event data: %w", err)
	}
	return outbox.Event{
		ID: id, AggregateType: data.AggregateType(), AggregateID: aggregate.String(), AggregateVersion: version,
		Type: data.EventType(), Data: encoded, Traceparent: traceparent,
	}, nil
}
