package local

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/contracts"
	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
)

// apiConnections are more than the default, which is the number of cores: commits at the same time share the disk's time.
const apiConnections = 16

// APIConfig of the API. DatabaseURL and Log are required.
type APIConfig struct {
	DatabaseURL string
	Log         *slog.Logger `json:"-"`
	Observe     *Observer    `json:"-"`
}

// openPool makes a pool of a function, which sees the database as it does on AWS.
func openPool(ctx context.Context, databaseURL, function string, connections int) (*pgxpool.Pool, error) {
	config, err := pgsession.ParsePoolConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("opening the pool of %s: %w", function, err)
	}
	pgsession.Fix(config.ConnConfig, function, pgsession.Limits{})
	config.MaxConns = max(config.MaxConns, int32(connections))
	config.PingTimeout = rdsdb.PingTimeout
	config.MaxConnIdleTime = time.Minute // a load's connections hold memory at both ends
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the pool of %s: %w", function, err)
	}
	return pool, nil
}

// run serves the car API (①②).
func (c APIConfig) run(ctx context.Context, listener net.Listener) error {
	pool, err := openPool(context.WithoutCancel(ctx), c.DatabaseURL, "carapi", apiConnections)
	if err != nil {
		return err
	}
	defer pool.Close()
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: c.Log})
	if err != nil {
		return err
	}
	guarded := withoutStrangers(Hosts(listener), withAsyncAPI(c.Observe.watchAPI(handler)))
	return serve(ctx, carapi.NewServer(guarded), listener, time.Second)
}

// withAsyncAPI adds GET /asyncapi.yaml beside the API's openapi.json. It is not part of the API, which has nothing to do with the bus.
func withAsyncAPI(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/asyncapi.yaml" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(contracts.AsyncAPI)
	})
}
