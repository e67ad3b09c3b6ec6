package rdsdb

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
)

// behindProxy is a test's own database whose server can vanish without a word, as in a failover.
func behindProxy(t *testing.T) (Config, *secretStore, *labtest.Proxy) {
	t.Helper()
	config, value := configOf(t, pgtest.New(t))
	proxy := labtest.NewProxy(t, net.JoinHostPort(config.Host, fmt.Sprint(config.Port)),
		func(_ *labtest.Proxy, _ bool, piece []byte) []byte { return piece })
	host, port, err := net.SplitHostPort(proxy.Address)
	require.NoError(t, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(t, err)
	config.Host, config.Port = host, uint16(number)
	return config, newSecretStore(t, value), proxy
}

// inTime returns a context that ends long after anything in these tests should have. How long things take is not judged.
func inTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func TestAnIdleConnectionThatWentSilentIsReplaced(t *testing.T) {
	t.Parallel()
	config, store, proxy := behindProxy(t)
	pool := open(t, config, store, nil)
	_, err := query(t, pool, "SELECT 'warm'")
	require.NoError(t, err)
	proxy.Vanish()
	idle := time.Now()
	labtest.Eventually(t, "the second after which pgxpool pings", func() bool { return time.Since(idle) > time.Second })

	conn, err := pool.Acquire(inTime(t))
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, conn.Ping(inTime(t)))
}

func TestAStatementOnASilentConnectionFailsBeforeItsContextEnds(t *testing.T) {
	t.Parallel()
	config, store, proxy := behindProxy(t)
	conn, err := ConnConfig(t.Context(), config, store.client, pgsession.Limits{Statement: time.Second})
	require.NoError(t, err)
	// The limit is short, and a busy server may say nothing for longer before it has vanished.
	var session *pgx.Conn
	labtest.Eventually(t, "a session that answers", func() bool {
		opened, err := pgx.ConnectConfig(inTime(t), conn)
		if err != nil {
			return false
		}
		t.Cleanup(func() { _ = opened.Close(context.Background()) })
		session = opened
		_, err = session.Exec(inTime(t), "SELECT 1")
		return err == nil
	})
	proxy.Vanish()

	ctx := inTime(t)
	_, err = session.Exec(ctx, "SELECT 1")
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, ctx.Err())
	require.True(t, session.IsClosed(), "a late answer would be taken for that of the next statement")
}

func TestASilenceInTimeIsNoError(t *testing.T) {
	t.Parallel()
	config, store, _ := behindProxy(t)
	session := connect(t, config, store, pgsession.Limits{Statement: labtest.Patience})
	_, err := session.Exec(inTime(t), "SELECT pg_sleep(0.1)")
	require.NoError(t, err)
}

func TestTheEndOfAContextEndsAStatement(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, value := configOf(t, db)
	session := connect(t, config, newSecretStore(t, value), pgsession.Limits{Statement: time.Hour})
	ctx, cancel := context.WithCancel(inTime(t))
	go func() {
		defer cancel()
		for active := false; !active && ctx.Err() == nil; {
			_ = db.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(3600)')").Scan(&active)
		}
	}()
	_, err := session.Exec(ctx, "SELECT pg_sleep(3600)")
	require.ErrorIs(t, err, context.Canceled)
}

// Where a statement may take as long as it needs, as in a migration, only the machine's keepalive tells a dead server.
func TestWithoutALimitSilenceIsNotLimited(t *testing.T) {
	t.Parallel()
	config, store, _ := behindProxy(t)
	conn, err := ConnConfig(t.Context(), config, store.client, pgsession.Limits{})
	require.NoError(t, err)
	require.Nil(t, conn.AfterNetConnect)
	require.True(t, dialer.KeepAliveConfig.Enable)
}

func connect(t *testing.T, config Config, store *secretStore, limits pgsession.Limits) *pgx.Conn {
	t.Helper()
	conn, err := ConnConfig(t.Context(), config, store.client, limits)
	require.NoError(t, err)
	session, err := pgx.ConnectConfig(t.Context(), conn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	return session
}
