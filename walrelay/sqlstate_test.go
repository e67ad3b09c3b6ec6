package walrelay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/lab/labtest"
)

// refuser speaks the protocol of PostgreSQL as far as the startup message, and answers it with an error.
type refuser struct {
	url         string
	connections atomic.Int64
}

func newRefuser(t *testing.T, answer *pgproto3.ErrorResponse) *refuser {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	r := &refuser{url: fmt.Sprintf("postgres://relay:secret@%s/outboxdb?sslmode=disable", listener.Addr())}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.connections.Add(1)
			backend := pgproto3.NewBackend(conn, conn)
			if _, err := backend.ReceiveStartupMessage(); err == nil {
				backend.Send(answer)
				_ = backend.Flush()
			}
			_ = conn.Close()
		}
	}()
	return r
}

// firstWait returns how long the relay waited after its first failure.
func firstWait(t *testing.T, log *labtest.Log) time.Duration {
	t.Helper()
	match := regexp.MustCompile(`attempts=1 since=\S+ retry_in_ms=(\d+)`).FindStringSubmatch(log.String())
	require.NotNil(t, match)
	millis, err := strconv.Atoi(match[1])
	require.NoError(t, err)
	return time.Duration(millis) * time.Millisecond
}

// run runs a relay with the database, whose set-up may take so long. Its error arrives on the channel.
func run(t *testing.T, databaseURL string, setupFor time.Duration) (*labtest.Log, <-chan error) {
	t.Helper()
	log := labtest.NewLog(t)
	database, err := rdsdb.NewURLLogin(databaseURL, "walrelay")
	require.NoError(t, err)
	relay, err := New(Config{
		Database: database, Stream: "outbox", Slot: "relay",
		Kinesis: kinesis.New(kinesis.Options{}), // never asked
		Log:     slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	relay.setupFor = setupFor
	ctx, cancel := context.WithCancel(t.Context())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- relay.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return log, done
}

// Every row of the table, and a code that is not in it, as a server's answer to the startup message.
func TestSQLStates(t *testing.T) {
	t.Parallel()
	type row struct {
		reaction reaction
		remedy   string
		inWAL    bool
	}
	rows := map[string]row{
		"08000": {reaction: passes},
		"08001": {reaction: passes},
		"08003": {reaction: passes},
		"08004": {reaction: passes},
		"08006": {reaction: passes},
		"08P01": {stops, "not through a pooler", false},
		"0A000": {stops, "primary", false},
		"22021": {stops, "not valid UTF-8", true},
		"22P05": {stops, "not valid UTF-8", true},
		"28000": {stops, "pg_hba.conf", false},
		"28P01": {stops, "password", false},
		"3D000": {stops, "database", false},
		"42501": {stops, "rds_replication", false},
		"42703": {stops, "columns and types", false},
		"42704": {reaction: passes},
		"42710": {reaction: passes},
		"42883": {stops, "columns and types", false},
		"42P01": {stops, "columns and types", false},
		"53300": {reaction: passes},
		"53400": {stops, "max_replication_slots", false},
		"55006": {reaction: standsBy},
		"57P01": {reaction: passes},
		"57P02": {reaction: passes},
		"57P03": {reaction: passes},
	}
	require.Equal(t, slices.Sorted(maps.Keys(sqlStates)), slices.Sorted(maps.Keys(rows)), "every row of sqlStates has a test")
	rows["XX000"] = row{reaction: unknown} // internal_error stands for all that are not listed
	for code, want := range rows {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			server := newRefuser(t, &pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "as it happens"})
			log, done := run(t, server.url, labtest.Patience) // a set-up that is cut off would be a failure more
			switch want.reaction {
			case stops:
				var setup *SetupError
				require.ErrorAs(t, <-done, &setup)
				require.Contains(t, setup.Problem, "as it happens (SQLSTATE "+code+")")
				require.NotContains(t, setup.Problem, "secret")
				require.Contains(t, setup.Remedy, want.remedy)
				require.Equal(t, want.inWAL, strings.HasSuffix(setup.Remedy, dropSlot("relay")))
				require.EqualValues(t, 1, server.connections.Load())
			case waitsLong:
				t.Fatal("no SQLSTATE is about a load that outlasts the WAL")
			case standsBy:
				labtest.Eventually(t, "a standby", func() bool { return strings.Contains(log.String(), "standby: another relay holds the slot") })
				tried := server.connections.Load() // the session's, and one that measures
				labtest.Eventually(t, "its next tries", func() bool { return server.connections.Load() > tried+1 })
				require.False(t, strings.Contains(log.String(), "session ended"))
			case passes:
				labtest.Eventually(t, "the third failure", func() bool { return strings.Contains(log.String(), "attempts=3 since=") })
				require.LessOrEqual(t, firstWait(t, log), minBackoff)
			case unknown:
				labtest.Eventually(t, "the second failure", func() bool { return strings.Contains(log.String(), "attempts=2 since=") })
				require.GreaterOrEqual(t, firstWait(t, log), time.Second/2)
			}
		})
	}
}

// PgBouncer's own answers to walrelay's startup message (https://github.com/pgbouncer/pgbouncer/issues/1074).
func TestNotThroughAPooler(t *testing.T) {
	t.Parallel()
	for _, message := range []string{"unsupported startup parameter: statement_timeout", "unsupported startup parameter: replication"} {
		server := newRefuser(t, &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: message})
		_, done := run(t, server.url, labtest.Patience)
		require.ErrorContains(t, <-done, message+" (SQLSTATE 08P01): connect to PostgreSQL itself, not through a pooler")
	}
}

// A cause that keeps a relay from the server may pass. The relay goes on trying, and says since
// when.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"WrongCertificate": "postgres://relay@" + wrongCertificate(t) + "/outboxdb?sslmode=verify-full",
		"NobodyListens":    "postgres://relay@127.0.0.1:1/outboxdb?sslmode=disable",
		"NoSuchName":       "postgres://relay@server.invalid/outboxdb?sslmode=disable",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, _ := run(t, url, setupTimeout)
			labtest.Eventually(t, "the third failure", func() bool { return strings.Contains(log.String(), "attempts=3 since=") })
			require.LessOrEqual(t, firstWait(t, log), minBackoff)
			require.Equal(t, name == "WrongCertificate", strings.Contains(log.String(), "x509: "))
		})
	}
}

// wrongCertificate returns the address of a server whose certificate nobody has signed.
func wrongCertificate(t *testing.T) string {
	t.Helper()
	certified := httptest.NewTLSServer(nil)
	t.Cleanup(certified.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := pgproto3.NewBackend(conn, conn).ReceiveStartupMessage(); err == nil { // SSLRequest
				_, _ = conn.Write([]byte("S"))
				_ = tls.Server(conn, &tls.Config{Certificates: certified.TLS.Certificates}).Handshake()
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

// No server needs to be provoked to these errors. The reaction does not depend on what is wrapped
// around them.
func TestReact(t *testing.T) {
	t.Parallel()
	r := &Relay{slot: "relay"}
	shutdown := &pgconn.PgError{Code: "57P01"}
	for name, tc := range map[string]struct {
		err  error
		want reaction
	}{
		"Nothing":                {nil, passes},
		"Setup":                  {fmt.Errorf("%w: %w", errInitialLoad, &SetupError{}), stops},
		"Outlasts":               {fmt.Errorf("%w: %w: 4 of 16 rows", errInitialLoad, errOutlasts), waitsLong},
		"StandbyOfALoad":         {fmt.Errorf("%w: %w", errInitialLoad, errSlotActive), standsBy},
		"SlotTakenDuringTheLoad": {fmt.Errorf("%w: %w", errInitialLoad, &pgconn.PgError{Code: "55006"}), standsBy},
		"Shutdown":               {fmt.Errorf("reading the WAL: %w", shutdown), passes},
		"ShutdownDuringTheLoad":  {fmt.Errorf("%w: %w", errInitialLoad, shutdown), unknown},
		"LostConnection":         {fmt.Errorf("reading the WAL: %w", io.ErrUnexpectedEOF), passes},
		"LostDuringTheLoad":      {fmt.Errorf("%w: %w", errInitialLoad, io.ErrUnexpectedEOF), unknown},
		"Timeout":                {fmt.Errorf("reading wal_level: %w", context.DeadlineExceeded), passes},
		"Undecodable":            {fmt.Errorf("reading: %w", &decodeError{errors.New("column id is missing")}), stops},
		"Unreadable":             {fmt.Errorf("%w: %w", errInitialLoad, pgx.ScanArgError{Err: errors.New("not a number")}), stops},
		"Nonsense":               {errors.New("reading the WAL: unknown message"), unknown},
	} {
		reaction, err := r.react(tc.err)
		require.Equal(t, tc.want, reaction, name)
		if tc.err != nil {
			require.ErrorContains(t, err, tc.err.Error(), name)
		}
	}
	_, err := r.react(&decodeError{errors.New("column id is missing")})
	require.ErrorContains(t, err, dropSlot("relay"))
}

func TestStreak(t *testing.T) {
	t.Parallel()
	s := streak{first: time.Second, longest: maxUnknownBackoff}
	requireBetween := func(longest time.Duration, streamed time.Duration) {
		t.Helper()
		delay := s.failed(streamed)
		require.GreaterOrEqual(t, delay, longest/2)
		require.LessOrEqual(t, delay, longest)
	}
	for _, longest := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		requireBetween(longest*time.Second, time.Minute)
	}
	require.Equal(t, 11, s.attempts)
	since := s.since
	for range 100 { // days
		requireBetween(maxUnknownBackoff, 0)
	}
	require.Equal(t, since, s.since)
	requireBetween(time.Second, maxUnknownBackoff+1)
	require.Equal(t, 1, s.attempts)
	require.NotEqual(t, since, s.since)
}
