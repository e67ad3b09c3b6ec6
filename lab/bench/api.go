package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/domain/statements"
	"rds-outbox-demo/lab/postgres"
	"rds-outbox-demo/lab/process"
	"rds-outbox-demo/outbox"
)

// carBody is what every request sends.
var carBody = domain.Sample(0)

// api measures POST /cars (①②), first the handler alone and then behind HTTP, beside pgbench with
// the same two inserts.
func api(ctx context.Context, e *environment) ([]Row, error) {
	alone, err := e.apiAlone(ctx, e.size(2_000))
	if err != nil {
		return nil, err
	}
	alone[0] = alone[0].atLeast(0.85).bounded(0.5)
	behindHTTP, err := e.apiBehindHTTP(ctx)
	if err != nil {
		return nil, err
	}
	p50, p99, cpu, memory := behindHTTP[0], behindHTTP[1], behindHTTP[3], behindHTTP[4]
	behindHTTP = []Row{p50.atMost(0.5 * p50.Limit.Median()), p99.atMost(0.5 * p99.Limit.Median()), behindHTTP[2].bounded(0.15), cpu.atMost(110), memory.atMost(25).bounded(40)}
	durable, err := e.apiDurable(ctx)
	return slices.Concat(alone, behindHTTP, durable), err
}

// apiDurable measures the same on a server that waits for its disk before it reports a commit, as
// every production server does. Where commits take no time, only the client libraries are compared.
func (e *environment) apiDurable(ctx context.Context) (_ []Row, err error) {
	binaries, err := postgres.FindBinaries(e.Root)
	if err != nil {
		return nil, err
	}
	server, err := postgres.Start(ctx, postgres.Config{Dir: filepath.Join(e.Dir, "durable"), Binaries: binaries, Durable: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	durable := *e
	durable.server = server
	rows, err := durable.apiAlone(ctx, e.size(1_000))
	if err != nil {
		return nil, err
	}
	behindHTTP, err := durable.apiBehindHTTP(ctx)
	if err != nil {
		return nil, err
	}
	rows = append(rows, behindHTTP[2].atLeast(0.5))
	for i := range rows {
		rows[i].What += ", commits on disk"
	}
	return rows, nil
}

// apiAlone does what a Lambda does. It has a handler and a pool of package rdsdb, and answers one
// request at a time. Beside it, pgx runs the same statements without handler and pool.
func (e *environment) apiAlone(ctx context.Context, requests int) ([]Row, error) {
	database, err := e.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	config, err := pgsession.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	secrets := awslocal.SDKConfig("http://secrets")
	secrets.HTTPClient = login{config.User, config.Password}
	pool, err := rdsdb.New(rdsdb.Config{
		Host: config.Host, Port: config.Port, Name: config.Database, User: config.User, SecretARN: "bench", ApplicationName: "bench",
	}, secretsmanager.NewFromConfig(secrets))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a line a request is part of the work
	if err != nil {
		return nil, err
	}
	defer log.Close()
	handler, err := carapi.New(carapi.Config{Pool: pool, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		return nil, err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the function's main
	// Turns are short, so that other work on the machine slows all sides alike. A round is the
	// median of five.
	const turns = 5
	short := *e
	short.Rounds *= turns
	rows, err := short.besidePgbench(ctx, []Row{{What: "one at a time, in-process"}, {What: "pgx without the handler"}}, database, 1, requests,
		rateOf(requests, 1, func(ctx context.Context) error { return create(ctx, handler) }),
		rateOf(requests, 1, func(ctx context.Context) error { return insert(ctx, conn) }))
	for i := range rows {
		rows[i].Ours, rows[i].Limit = rows[i].Ours.medians(turns), rows[i].Limit.medians(turns)
	}
	return rows, err
}

// login answers like Secrets Manager, with the login of the bench's database.
type login struct{ user, password string }

// Do makes login the HTTP client of the SDK.
func (l login) Do(*http.Request) (*http.Response, error) {
	secret, err := json.Marshal(map[string]string{"username": l.user, "password": l.password})
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(map[string]string{"SecretString": string(secret)})
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(answer))}, err
}

// create sends one request to the handler.
func create(ctx context.Context, handler http.Handler) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, domain.Path, strings.NewReader(carBody))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	w := response{header: http.Header{}}
	if handler.ServeHTTP(&w, request); w.status != http.StatusCreated {
		return fmt.Errorf("the API answered %d", w.status)
	}
	return nil
}

// insert writes what a request writes.
func insert(ctx context.Context, conn *pgx.Conn) error {
	car, event := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	traceparent := createValues["traceparent"]
	var batch outbox.Batch
	queries := dbgen.New(&batch)
	if err := statements.Insert(ctx, queries, car, time.Now()); err != nil {
		return err
	}
	if err := queries.OutboxInsert(ctx, dbgen.OutboxInsertParams{
		ID: event, AggregateType: createValues["type"], AggregateID: car.String(), AggregateVersion: 1,
		EventType: createValues["event"], EventData: []byte(createValues["data"]), Traceparent: &traceparent,
	}); err != nil {
		return err
	}
	return batch.Send(ctx, conn)
}

// response is an http.ResponseWriter that keeps the status only.
type response struct {
	header http.Header
	status int
}

func (w *response) Header() http.Header         { return w.header }
func (w *response) WriteHeader(status int)      { w.status = status }
func (w *response) Write(p []byte) (int, error) { return len(p), nil }

// apiBehindHTTP is the API as a process of its own, with one client and with eight: p50 and p99 of one, then of eight the rate beside
// pgbench's, CPU and memory. p50 and p99 stand beside those of the stand-in for the original.
func (e *environment) apiBehindHTTP(ctx context.Context) ([]Row, error) {
	database, err := e.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	p50 := Row{What: "HTTP, one connection: p50", Unit: "ms", LimitName: standIn}
	p99 := Row{What: "HTTP, one connection: p99", Unit: "ms", LimitName: standIn}
	cpu := Row{What: "CPU of it a request", Unit: "µs"}
	memory := Row{What: "memory of it", Unit: "MB"}
	const connections = 8
	requests := max(e.size(20_000), 5_000) // the start of the process counts, too
	round := 0
	command := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", filepath.Join(e.Dir, "api"), "./lab/bench/testdata/api")
	command.Dir = e.Root
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the API: %w: %s", err, out)
	}
	eight, err := e.besidePgbench(ctx, []Row{{What: "HTTP, 8 connections"}}, database, connections, requests, func(ctx context.Context) (float64, error) {
		one, err := e.runAPI(ctx, e.ownAPI(database, 1), 1, requests/3)
		if err != nil {
			return 0, err
		}
		original, err := e.runAPI(ctx, e.originalAPI(database), 1, requests/3)
		if err != nil {
			return 0, err
		}
		many, err := e.runAPI(ctx, e.ownAPI(database, connections), connections, requests)
		if err != nil {
			return 0, err
		}
		if round++; round > 1 { // the first warms up
			p50.Ours, p50.Limit = append(p50.Ours, one.times.percentile(50)), append(p50.Limit, original.times.percentile(50))
			p99.Ours, p99.Limit = append(p99.Ours, one.times.percentile(99)), append(p99.Limit, original.times.percentile(99))
			cpu.Ours = append(cpu.Ours, float64(many.cpu.Microseconds())/float64(requests))
			memory.Ours = append(memory.Ours, many.memory)
		}
		return float64(requests) / many.took.Seconds(), nil
	})
	if err != nil {
		return nil, err
	}
	return []Row{p50, p99, eight[0], cpu, memory}, nil
}

// load is what a number of requests took, each and together, and what the process used for them, its start included.
type load struct {
	times  Values // ms
	took   time.Duration
	cpu    time.Duration
	memory float64 // MB at most
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (e *environment) ownAPI(database string, connections int) process.Config {
	return process.Config{
		Program: filepath.Join(e.Dir, "api"), Env: []string{"DATABASE_URL=" + database + "&pool_max_conns=" + strconv.Itoa(connections)},
	}
}

// runAPI starts an API, sends it so many requests over so many connections, and ends it.
func (e *environment) runAPI(ctx context.Context, api process.Config, connections, requests int) (l load, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return l, fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return l, err
	}
	defer socket.Close()
	log, err := os.Create(filepath.Join(e.Dir, "api.log"))
	if err != nil {
		return l, err
	}
	defer log.Close()
	api.Output, api.Inherited = log, socket
	program, err := process.Start(api)
	if err != nil {
		return l, err
	}
	defer func() {
		l.memory = process.PeakMemory(program.PID())
		program.Stop(context.WithoutCancel(ctx), 5*time.Second)
		l.cpu = program.CPU()
		if err != nil {
			err = fmt.Errorf("%w; its log is %s", err, log.Name())
		}
	}()
	// The first request waits for the program and its connection. It is not counted.
	if _, err := post(ctx, listener.Addr().String(), connections, new(atomic.Int64)); err != nil {
		return l, err
	}
	var group errgroup.Group
	times := make([]Values, connections)
	left := new(atomic.Int64)
	left.Store(int64(requests))
	started := time.Now()
	for i := range connections {
		group.Go(func() (err error) {
			times[i], err = post(ctx, listener.Addr().String(), 1, left)
			return err
		})
	}
	err = group.Wait()
	l.took, l.times = time.Since(started), slices.Concat(times...)
	return l, err
}
