package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"rds-outbox-demo/lab/awslocal"
)

// AWSConfig of the AWS listener. Log is required.
type AWSConfig struct {
	Dir         string // its streams, queues and journal
	Stream, Bus string
	Settings    Settings
	// TellsDiscards reports whether the consumer's mapping has its on-failure queue here.
	TellsDiscards bool
	JournalBytes  int64            // how much of the bus's journal is kept; default awslocal's
	Standing      []awslocal.Fault // in force from the start on, and after each restart
	Log           *slog.Logger     `json:"-"`
	Observe       *Observer        `json:"-"`
	server        *awslocal.Server // nil: run opens it
}

// open opens the streams, the bus and the queues that infra/ has for a stage.
func (c AWSConfig) open() (*awslocal.Server, error) {
	stats := c.Settings.CarStats
	config := awslocal.Config{
		Dir:          c.Dir,
		Streams:      []awslocal.Stream{{Name: c.Stream, Shards: localShards}},
		Buses:        []string{c.Bus},
		BusLogs:      map[string]string{localLogs: c.Bus},
		Queues:       []string{localQueue, localOnFail, localStats, localStats + "-failures"},
		Redrives:     map[string]awslocal.Redrive{localStats: {DeadLetterQueue: localStats + "-failures", MaxReceiveCount: stats.MaxReceives}},
		Rules:        []awslocal.Rule{{Bus: c.Bus, Source: stats.Source, DetailTypes: stats.DetailTypes, Queue: localStats}},
		Mappings:     []awslocal.Mapping{c.mapping()},
		JournalBytes: c.JournalBytes,
		Log:          c.Log,
	}
	if c.Observe != nil {
		config.OnRecord, config.OnEvent = c.Observe.Stored, c.Observe.Accepted
	}
	server, err := awslocal.Open(config)
	if err != nil {
		return nil, err
	}
	for _, fault := range c.Standing {
		if err := fault.Validate(); err != nil {
			return nil, errors.Join(err, server.Close())
		}
		server.Faults().Add(fault)
	}
	return server, nil
}

// mapping is how Lambda would describe the consumer's.
func (c AWSConfig) mapping() awslocal.Mapping {
	s := c.Settings.Consumer
	m := awslocal.Mapping{
		Function: localConsumer, Stream: c.Stream, BatchSize: s.BatchSize, ParallelizationFactor: s.ParallelizationFactor, MaximumRetryAttempts: -1,
		MaximumRecordAge: int(s.MaxRecordAge.Seconds()), BisectOnError: s.BisectOnError, ReportBatchItemFailures: true,
	}
	if s.OnFailure && c.TellsDiscards {
		m.OnFailureQueue = localOnFail
	}
	return m
}

// run serves the listener, and its faults below FaultPath. At the end it closes the server.
func (c AWSConfig) run(ctx context.Context, listener net.Listener) (err error) {
	server := c.server
	if server == nil {
		if server, err = c.open(); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", server)
	mux.Handle(FaultPath, faultHandler(server.Faults()))
	// There is no read timeout, because the listener has to hold calls for as long as a fault says.
	http := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return errors.Join(serve(ctx, http, listener, 0), server.Close())
}

// serve serves until ctx ends. Requests that are under way then get the grace to end.
func serve(ctx context.Context, server *http.Server, listener net.Listener, grace time.Duration) error {
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if server.Shutdown(ending) == nil {
			closed <- nil
			return
		}
		closed <- server.Close()
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return <-closed
}
