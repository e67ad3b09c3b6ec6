// Command api serves the car API (①②) on the socket that is its descriptor 4. It does nothing else,
// so that all that the process costs is the API's.
package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"runtime/debug"

	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/handlers/carapi"
)

func main() {
	debug.SetGCPercent(200) // The heap is so small that at 100 the collector takes a tenth of the CPU.
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := serve(log); err != nil {
		log.Error("serving the API", "error", err)
		os.Exit(1)
	}
}

func serve(log *slog.Logger) error {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: log})
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(4, "listener"))
	if err != nil {
		return err
	}
	return carapi.NewServer(handler).Serve(listener)
}
