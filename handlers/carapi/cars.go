package carapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// healthTimeout is the longest that a health check waits for the database.
const healthTimeout = 5 * time.Second

// createCar (POST /cars) writes the car and its event in one round trip, which the server runs as one transaction.
func (a *api) createCar(r *http.Request) (answer, error) {
	now := a.timestamp()
	sent, err := readCar(r.Body, now.Year()+1, true)
	if err != nil {
		return answer{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return answer{}, fmt.Errorf("making a car id: %w", err)
	}
	car := dbgen.Car{ID: id, Version: 1, CreatedAt: now, UpdatedAt: now}
	sent.apply(&car)
	event, err := newEvent(car, typeCarCreated, CarCreated{
		CarID: car.ID, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color, CreatedAt: car.CreatedAt,
	}, traceparent(r))
	if err != nil {
		return answer{}, err
	}

	batch := &pgx.Batch{}
	// In the order of dbgen.CarInsertParams.
	batch.Queue(dbgen.CarInsert, car.ID, car.Make, car.Model, car.Year, car.Color, car.CreatedAt)
	if err := outbox.Queue(batch, event); err != nil {
		return answer{}, err
	}
	conn, err := a.pool.Acquire(r.Context())
	if err != nil {
		return answer{}, fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	if sabotage.On(sabotage.EventAfterCommit) {
		if _, err := conn.Exec(r.Context(), batch.QueuedQueries[0].SQL, batch.QueuedQueries[0].Arguments...); err != nil {
			return answer{}, err
		}
		batch.QueuedQueries = batch.QueuedQueries[1:]
	}
	failpoint.Hit(failpoint.APIBeforeCommit)
	if err := conn.SendBatch(r.Context(), batch).Close(); err != nil {
		return answer{}, fmt.Errorf("writing a car and its event: %w", err)
	}
	failpoint.Hit(failpoint.APIAfterCommit)
	return answer{
		status:   http.StatusCreated,
		location: "/cars/" + car.ID.String(),
		body:     carAnswer{Message: "Car created successfully", Car: carOf(car)},
		eventID:  event.ID,
	}, nil
}

// updateCar (PATCH /cars/{id}) changes the fields that were sent. Every PATCH is an event, even one that changes nothing.
func (a *api) updateCar(r *http.Request) (answer, error) {
	id, err := pathID(r)
	if err != nil {
		return answer{}, err
	}
	sent, err := readCar(r.Body, a.timestamp().Year()+1, false)
	if err != nil {
		return answer{}, err
	}
	conn, err := a.pool.Acquire(r.Context())
	if err != nil {
		return answer{}, fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()

	var car dbgen.Car
	var event outbox.Event
	err = pgx.BeginFunc(r.Context(), conn, func(tx pgx.Tx) error {
		db := dbgen.New(tx)
		// The lock comes before everything that depends on the row: two PATCHes that merged what they had read without it
		// would undo each other's fields.
		if car, err = db.CarLock(r.Context(), id); err != nil {
			return err
		}
		sent.apply(&car)
		car, err = db.CarUpdate(r.Context(), dbgen.CarUpdateParams{
			ID: id, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color,
			UpdatedAt: a.timestamp(), // under the lock: updatedAt follows the versions
		})
		if err != nil {
			return err
		}
		event, err = newEvent(car, typeCarUpdated, CarUpdated{
			CarID: car.ID, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color,
			CreatedAt: car.CreatedAt.UTC(), UpdatedAt: car.UpdatedAt.UTC(),
		}, traceparent(r))
		if err != nil {
			return err
		}
		return outbox.Append(r.Context(), tx, event)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return answer{}, errNotFound
	}
	if err != nil {
		return answer{}, fmt.Errorf("updating a car: %w", err)
	}
	return answer{status: http.StatusOK, body: carAnswer{Car: carOf(car)}, eventID: event.ID}, nil
}

// getCar is GET /cars/{id}.
func (a *api) getCar(r *http.Request) (answer, error) {
	id, err := pathID(r)
	if err != nil {
		return answer{}, err
	}
	conn, err := a.pool.Acquire(r.Context())
	if err != nil {
		return answer{}, fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	car, err := dbgen.New(conn).CarGet(r.Context(), id)
	if errors.Is(err, pgx.ErrNoRows) {
		return answer{}, errNotFound
	}
	if err != nil {
		return answer{}, fmt.Errorf("reading a car: %w", err)
	}
	return answer{status: http.StatusOK, body: carAnswer{Car: carOf(car)}}, nil
}

// health (GET /healthz) asks the database: without it no other route works.
func (a *api) health(r *http.Request) (answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	conn, err := a.pool.Acquire(ctx)
	if err != nil {
		return answer{}, &unhealthyError{err}
	}
	defer conn.Release()
	if err := conn.Ping(ctx); err != nil {
		return answer{}, &unhealthyError{err}
	}
	return answer{status: http.StatusOK, body: map[string]string{"status": "ok"}}, nil
}

// pathID answers an id that is no UUID like one that no car has. uuid.Parse takes other spellings than the canonical one, too;
// they would be second names of a car.
func pathID(r *http.Request) (uuid.UUID, error) {
	s := r.PathValue("id")
	id, err := uuid.Parse(s)
	if err != nil || len(s) != len(id.String()) {
		return uuid.Nil, errNotFound
	}
	return id, nil
}

// timestamp is the clock's time as PostgreSQL stores it. With the nanoseconds left in, the answer and the event would show
// another time than the row.
func (a *api) timestamp() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

func newEvent(car dbgen.Car, eventType string, data any, traceparent string) (outbox.Event, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return outbox.Event{}, fmt.Errorf("making an event id: %w", err)
	}
	encoded, err := encode(data)
	if err != nil {
		return outbox.Event{}, fmt.Errorf("encoding event data: %w", err)
	}
	return outbox.Event{
		ID: id, AggregateType: aggregateCar, AggregateID: car.ID.String(), AggregateVersion: car.Version,
		Type: eventType, Data: encoded, Traceparent: traceparent,
	}, nil
}

// traceparent is the request's, or empty when it has none that is valid: a broken one is never worth an error.
func traceparent(r *http.Request) string {
	if s := r.Header.Get("Traceparent"); outbox.ValidTraceparent(s) {
		return s
	}
	return ""
}

type carAnswer struct {
	Message string  `json:"message,omitempty"`
	Car     carBody `json:"car"`
}

type carBody struct {
	ID        uuid.UUID `json:"id"`
	Make      string    `json:"make"`
	Model     string    `json:"model"`
	Year      int32     `json:"year"`
	Color     *string   `json:"color"`
	CreatedAt time.Time `json:"createdAt"`
}

func carOf(car dbgen.Car) carBody {
	return carBody{
		ID: car.ID, Make: car.Make, Model: car.Model, Year: car.Year, Color: car.Color, CreatedAt: car.CreatedAt.UTC(),
	}
}
