// Package carapi is the service's HTTP API (①). It changes cars and writes their events in the same
// transaction (②).
//
// In: HTTP requests with JSON bodies.
// Out: rows of tables cars, outbox and idempotency, JSON answers, one log line per request.
// openapi.json says what a client has to know.
package carapi

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/internal/pgsession"
)

// Config is what the API needs.
type Config struct {
	Pool   Pool
	Logger *slog.Logger
	// Now is the clock of createdAt, updatedAt and the latest year. Default: time.Now.
	Now func() time.Time
	// Caller returns who sends a request, because an Idempotency-Key belongs to one caller.
	// Default: everybody is the same caller.
	Caller func(*http.Request) string
	// KeepKeys is how long the answer to an Idempotency-Key is kept, by the database's clock. Default: 24 h.
	KeepKeys time.Duration
	// CORSOrigin is the one origin whose pages may call the API, such as https://cars.example, or * for every page. Default: none.
	CORSOrigin string
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
	if config.Caller == nil {
		config.Caller = func(*http.Request) string { return "anonymous" }
	}
	if config.KeepKeys == 0 {
		config.KeepKeys = 24 * time.Hour
	}
	if config.KeepKeys < time.Minute {
		return nil, fmt.Errorf("carapi: Config.KeepKeys is %s: set it to a minute or more, or a client has no time to try again", config.KeepKeys)
	}
	return (&api{
		pool: config.Pool, logger: config.Logger, now: config.Now, caller: config.Caller, keepKeys: config.KeepKeys, cors: corsOf(config.CORSOrigin),
	}).routes(), nil
}

// withConn lends a connection to do, which runs one statement or one whole transaction. withConn
// may call do again (Replan).
func (a *api) withConn(ctx context.Context, do func(*pgxpool.Conn) error) error {
	conn, err := a.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	return pgsession.Replan(ctx, conn.Conn(), func() error { return do(conn) })
}

type api struct {
	pool     Pool
	logger   *slog.Logger
	now      func() time.Time
	caller   func(*http.Request) string
	keepKeys time.Duration
	cors     http.Header
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /cars", a.handle(a.createCar))
	mux.Handle("GET /cars", a.handle(a.listCars))
	mux.Handle("GET /cars/{id}", a.handle(a.getCar))
	mux.Handle("PATCH /cars/{id}", a.handle(a.updateCar))
	mux.Handle("DELETE /cars/{id}", a.handle(a.deleteCar))
	mux.Handle("GET /healthz", a.handle(a.health))
	mux.Handle("GET /openapi.json", a.handle(openAPI)) // not on AWS: API Gateway has no such route

	// Preflights, and 405 for the methods that a path does not have. ServeMux's own 405 and 404 are plain text.
	mux.Handle("/cars", a.handle(otherMethod("GET, HEAD, POST, OPTIONS")))
	mux.Handle("/cars/{id}", a.handle(otherMethod("GET, HEAD, PATCH, DELETE, OPTIONS")))
	mux.Handle("/healthz", a.handle(otherMethod("GET, HEAD, OPTIONS")))
	mux.Handle("/openapi.json", a.handle(otherMethod("GET, HEAD, OPTIONS")))
	mux.Handle("/", a.handle(notFound))
	return a.withoutRedirects(mux)
}

// withoutRedirects answers 404 to //cars and /x/../cars. ServeMux would redirect them to /cars by
// itself, in HTML, without our headers and our log line.
func (a *api) withoutRedirects(mux *http.ServeMux) http.Handler {
	unknown := a.handle(notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := r.URL.EscapedPath()
		if clean := path.Clean(sent); !strings.HasPrefix(sent, "/") || sent != clean && sent != clean+"/" {
			r.Pattern = "/"
			unknown.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
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

//go:embed openapi.json
var document []byte

// openAPI is GET /openapi.json. It returns the API's description as OpenAPI 3.1.
func openAPI(*http.Request) (answer, error) {
	return answer{status: http.StatusOK, body: json.RawMessage(document)}, nil
}
