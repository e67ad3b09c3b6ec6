package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/process"
	"rds-outbox-demo/migrate"
	"rds-outbox-demo/outbox"
)

// backlog is a WAL full of events, and a slot whose position is before them. The slot itself is
// never read, because each round reads a copy of it.
type backlog struct {
	conn *pgx.Conn
	url  string
	rows int
	end  string // LSN
}

const backlogSlot = "bench_backlog"

// relay drains a backlog (③④), once with one row a transaction and once with 100, beside
// pg_recvlogical, which is PostgreSQL's own program for it.
func relay(ctx context.Context, e *environment) (rows []Row, err error) {
	sink, err := sink.Start(0)
	if err != nil {
		return nil, err
	}
	defer sink.Close()
	for _, test := range []struct {
		what          string
		perTx         int
		target, bound float64
	}{
		{"rows/s, 200,000 rows of 600 B, one a transaction", 1, 1.4, 0.5},
		{"rows/s, the same, 100 a transaction", 100, 1.2, 0.4},
	} {
		row, cost, err := e.drain(ctx, sink, test.what, test.perTx)
		if err != nil {
			return nil, err
		}
		if len(row.Limit) > 0 {
			row = row.atLeast(test.target)
		}
		rows = append(rows, row.bounded(test.bound), cost[0].atMost(10), cost[1].atMost(64).bounded(80))
	}
	return rows, nil
}

func (e *environment) drain(ctx context.Context, sink *sink.Server, what string, perTx int) (row Row, cost [2]Row, err error) {
	b, err := e.newBacklog(ctx, e.size(200_000), perTx)
	if err != nil {
		return Row{}, cost, err
	}
	defer b.close()
	cost = [2]Row{{What: "CPU of it a row", Unit: "µs"}, {What: "memory of it", Unit: "MB"}}
	measurements := []measurement{func(ctx context.Context) (float64, error) {
		run, err := e.runRelay(ctx, b, sink)
		cost[0].Ours, cost[1].Ours = append(cost[0].Ours, run.cpu), append(cost[1].Ours, run.memory)
		return run.rate, err
	}}
	row = Row{What: what, Unit: "rows/s", LimitName: "pg_recvlogical", Missing: install}
	if e.tools.recvlogical != "" {
		row.Missing = ""
		measurements = append(measurements, func(ctx context.Context) (float64, error) { return e.receive(ctx, b) })
	}
	values, err := e.alternate(ctx, measurements...)
	if err != nil {
		return Row{}, cost, err
	}
	row.Ours = values[0]
	if len(values) > 1 {
		row.Limit = values[1]
	}
	return row, cost, nil
}

// newBacklog makes a database of its own.
func (e *environment) newBacklog(ctx context.Context, rows, perTx int) (*backlog, error) {
	url, err := e.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	b := &backlog{conn: conn, url: url, rows: rows}
	if _, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", backlogSlot); err != nil {
		return nil, fmt.Errorf("making a slot: %w", err)
	}
	if err := Fill(ctx, conn, rows, perTx); err != nil {
		return nil, err
	}
	return b, conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&b.end)
}

// Fill commits rows of 600 B to outbox, perTx in a transaction, spread over 10,000 aggregates.
func Fill(ctx context.Context, conn *pgx.Conn, rows, perTx int) error {
	for _, sql := range []string{
		"SET synchronous_commit = off",
		fmt.Sprintf(`DO $$ BEGIN
			FOR i IN 0..%d LOOP
				INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
				SELECT gen_random_uuid(), 'Car', 'car-' || n %% 10000, n / 10000 + 1, 'CarUpdated',
					jsonb_build_object('make', 'Toyota', 'model', 'Camry', 'year', 2023, 'text', repeat('x', 400))
				FROM generate_series(i * %d, i * %d + %d) AS n;
				COMMIT;
			END LOOP;
		END $$`, rows/perTx-1, perTx, perTx, perTx-1),
		"CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("making a backlog: %w", err)
		}
	}
	return nil
}

func (b *backlog) close() {
	_, _ = b.conn.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", backlogSlot)
	_ = b.conn.Close(context.Background())
}

// copySlot makes a slot whose position is before the backlog.
func (b *backlog) copySlot(ctx context.Context, name string) (drop func(), err error) {
	if _, err := b.conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2)", backlogSlot, name); err != nil {
		return nil, fmt.Errorf("copying the slot: %w", err)
	}
	return func() {
		// The server notices a moment later that the slot's reader is gone, and drops no slot that is in use.
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if _, err := b.conn.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", name); err == nil {
				return
			}
		}
	}, nil
}

// relayRun is what a backlog took.
type relayRun struct {
	rate   float64 // rows/s from the program's start until the sink had every row
	cpu    float64 // µs a row
	memory float64 // MB at most
}

// runRelay runs walrelay until the backlog is drained, and measures it.
func (e *environment) runRelay(ctx context.Context, b *backlog, sink *sink.Server) (run relayRun, err error) {
	drop, err := b.copySlot(ctx, "bench_relay")
	if err != nil {
		return run, err
	}
	defer drop()
	log, err := os.Create(filepath.Join(e.Dir, "walrelay.log"))
	if err != nil {
		return run, err
	}
	defer log.Close()
	before := sink.Accepted.Load()
	started := time.Now()
	program, err := process.Start(process.Config{Program: filepath.Join(e.Root, "bin", "walrelay"), Output: log, Env: []string{
		"DATABASE_URL=" + b.url, "STREAM_NAME=bench", "SLOT_NAME=bench_relay", "AWS_ENDPOINT_URL_KINESIS=" + sink.URL,
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
	}})
	if err != nil {
		return run, err
	}
	for sink.Accepted.Load()-before < int64(b.rows) {
		select {
		case <-program.Done():
			return run, fmt.Errorf("walrelay ended: %w; its log is %s", program.Err(), log.Name())
		case <-ctx.Done():
			program.Signal(os.Kill)
			return run, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	rows := float64(b.rows)
	run.rate = rows / time.Since(started).Seconds()
	run.memory = process.PeakMemory(program.PID())
	program.Signal(os.Interrupt)
	<-program.Done()
	run.cpu = float64(program.CPU().Microseconds()) / rows
	return run, nil
}

// receive returns the rows/s of pg_recvlogical on the same backlog with the same plugin. What it
// reads is thrown away.
func (e *environment) receive(ctx context.Context, b *backlog) (float64, error) {
	drop, err := b.copySlot(ctx, "bench_receive")
	if err != nil {
		return 0, err
	}
	defer drop()
	command := exec.CommandContext(ctx, e.tools.recvlogical, "-d", b.url, "-S", "bench_receive", "--start", "--no-loop", "-f", "/dev/null",
		"--endpos", b.end, "-o", "proto_version=1", "-o", "publication_names="+outbox.Publication)
	started := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	return float64(b.rows) / time.Since(started).Seconds(), nil
}

// newDatabase makes an empty database with the migrations.
func (e *environment) newDatabase(ctx context.Context) (url string, err error) {
	conn, err := pgx.Connect(ctx, e.server.URL())
	if err != nil {
		return "", fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	name := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("making a database: %w", err)
	}
	config, err := pgsession.ParseConfig(e.server.URL())
	if err != nil {
		return "", err
	}
	url = fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", config.User, config.Password, config.Host, config.Port, name)
	if config, err = pgsession.ParseConfig(url); err != nil {
		return "", err
	}
	_, err = migrate.Up(ctx, config, migrate.Options{LockWait: 20 * time.Second})
	return url, err
}
