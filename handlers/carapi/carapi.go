// Package carapi is the service's HTTP API (①): it changes cars and writes their events in the same transaction (②).
//
// In: HTTP requests with JSON bodies. Out: rows of tables cars and outbox, JSON answers, one log line per request.
package carapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Config is what the API needs.
type Config struct {
	Pool   Pool
	Logger *slog.Logger
	// Now is the clock of createdAt, updatedAt and the latest year. Default: time.Now.
	Now func() time.Time
}

// Pool lends connections: *pgxpool.Pool, or *rdsdb.Pool, which survives a change of the password.
type Pool interface {
	Acquire(context.Context) (*pgxpool.Conn, error)
}

// New returns the API. It asks nothing of the database before the first request.
func New(config Config) (http.Handler, error) {
	if config.Pool == nil {
		return nil, errors.New("carapi: Config.Pool is nil: give it a *pgxpool.Pool or a *rdsdb.Pool")
	}
	if config.Logger == nil {
		return nil, errors.New("carapi: Config.Logger is nil: give it the program's logger")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return (&api{pool: config.Pool, logger: config.Logger, now: config.Now}).routes(), nil
}

type api struct {
	pool   Pool
	logger *slog.Logger
	now    func() time.Time
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /cars", a.handle(a.createCar))
	mux.Handle("GET /cars/{id}", a.handle(a.getCar))
	mux.Handle("PATCH /cars/{id}", a.handle(a.updateCar))
	mux.Handle("GET /healthz", a.handle(a.health))

	// Preflights, and 405 for the methods that a path does not have. ServeMux's own 405 and 404 are plain text.
	mux.Handle("/cars", a.handle(otherMethod("POST, OPTIONS")))
	mux.Handle("/cars/{id}", a.handle(otherMethod("GET, HEAD, PATCH, OPTIONS")))
	mux.Handle("/healthz", a.handle(otherMethod("GET, HEAD, OPTIONS")))
	mux.Handle("/", a.handle(notFound))
	return mux
}

// otherMethod answers a browser's preflight, and everything else with 405.
func otherMethod(allow string) handler {
	return func(r *http.Request) (answer, error) {
		if r.Method == http.MethodOptions {
			return answer{status: http.StatusOK, allow: allow}, nil
		}
		return answer{}, &methodError{allow: allow}
	}
}

func notFound(*http.Request) (answer, error) { return answer{}, errNotFound }
