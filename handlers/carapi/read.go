package carapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/dbgen"
)

const (
	defaultLimit, maxLimit = 20, 100
	// healthTimeout is the longest that a health check waits for the database.
	healthTimeout = 5 * time.Second
)

// getCar is GET /cars/{id}.
func (a *api) getCar(r *http.Request) (answer, error) {
	id, err := pathID(r)
	if err != nil {
		return answer{}, err
	}
	var car dbgen.Car
	err = a.withConn(r.Context(), func(conn *pgxpool.Conn) (err error) {
		car, err = dbgen.New(conn).CarGet(r.Context(), id)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return answer{}, errNotFound
	}
	if err != nil {
		return answer{}, fmt.Errorf("reading a car: %w", err)
	}
	return answer{status: http.StatusOK, etag: etag(car.Version), body: carAnswer{Car: carOf(car)}}, nil
}

// listCars (GET /cars?limit=&after=) returns a page of cars, the oldest first. The cursor is the last
// id of the previous page, so that a page costs the same however many cars there are. Ids are in the
// order of creation by the clocks of the machines that made them. So a new car from a machine whose
// clock is slow may be placed before the cursor, where this client does not see it.
func (a *api) listCars(r *http.Request) (answer, error) {
	limit, after, err := readPage(r.URL.RawQuery)
	if err != nil {
		return answer{}, err
	}
	var cars []dbgen.Car
	err = a.withConn(r.Context(), func(conn *pgxpool.Conn) (err error) {
		// One car more than the page shows is read, to know whether there is a next page.
		cars, err = dbgen.New(conn).CarPage(r.Context(), dbgen.CarPageParams{AfterID: after, MaxRows: int32(limit) + 1})
		return err
	})
	if err != nil {
		return answer{}, fmt.Errorf("reading cars: %w", err)
	}
	page := pageAnswer{Cars: []carBody{}}
	if len(cars) > limit {
		cars = cars[:limit]
		page.Next = &cars[limit-1].ID
	}
	for _, car := range cars {
		page.Cars = append(page.Cars, carOf(car))
	}
	return answer{status: http.StatusOK, body: page}, nil
}

// readPage returns an *invalidError that names every wrong parameter. It ignores unknown parameters. If
// a parameter comes twice, the first one counts.
func readPage(query string) (limit int, after uuid.UUID, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, uuid.Nil, &invalidError{message: "the query is not valid"}
	}
	wrong := map[string]string{}
	limit = defaultLimit
	if values.Has("limit") {
		limit, err = strconv.Atoi(values.Get("limit"))
		if err != nil || limit < 1 || limit > maxLimit {
			wrong["limit"] = fmt.Sprintf("must be from 1 to %d", maxLimit)
		}
	}
	if values.Has("after") {
		var ok bool
		if after, ok = canonicalID(values.Get("after")); !ok {
			wrong["after"] = "must be the next of another page"
		}
	}
	if len(wrong) > 0 {
		return 0, uuid.Nil, &invalidError{message: "invalid parameters", fields: wrong}
	}
	return limit, after, nil
}

// health (GET /healthz) queries the database, because no other route works without it.
func (a *api) health(r *http.Request) (answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if err := a.withConn(ctx, func(conn *pgxpool.Conn) error { return conn.Ping(ctx) }); err != nil {
		return answer{}, &unhealthyError{err}
	}
	return answer{status: http.StatusOK, body: map[string]string{"status": "ok"}}, nil
}

// pathID returns errNotFound for anything but a canonical UUID. uuid.Parse also accepts other spellings
// of the same id, which would be second names of a car.
func pathID(r *http.Request) (uuid.UUID, error) {
	id, ok := canonicalID(r.PathValue("id"))
	if !ok {
		return uuid.Nil, errNotFound
	}
	return id, nil
}

func canonicalID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && len(s) == len(id.String())
}

type carAnswer struct {
	Message string  `json:"message,omitempty"`
	Car     carBody `json:"car"`
}

type pageAnswer struct {
	Cars []carBody  `json:"cars"`
	Next *uuid.UUID `json:"next"` // null on the last page
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
