package rdsdb

import (
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
)

func TestALoginReadsThePasswordAgainAfterRotation(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, _ := configOf(t, db)
	requirePasswords(t, config)
	role := newLoginRole(t, db, "first")
	config.User = role.name
	store := newSecretStore(t, secretValue(role.name, "not yet"))
	login, err := newLogin(config, store.client, func(string) *x509.CertPool { return nil })
	require.NoError(t, err)
	require.Equal(t, config.Name, login.Database())
	connect := func(change func(*pgx.ConnConfig)) error {
		conn, err := login.Connect(t.Context(), change)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	}

	require.ErrorContains(t, connect(nil), "28P01")
	require.False(t, login.MayBeRotating(), "the password was never right")
	store.set(secretValue(role.name, "first"))
	require.NoError(t, connect(nil))
	require.True(t, login.MayBeRotating())
	reads := store.reads.Load()
	require.NoError(t, connect(func(c *pgx.ConnConfig) { c.RuntimeParams["application_name"] = "changed" }))
	require.Equal(t, reads, store.reads.Load(), "the password is remembered")

	_, err = db.Pool.Exec(t.Context(), fmt.Sprintf("ALTER ROLE %s PASSWORD 'second'", role.name))
	require.NoError(t, err)
	store.set(secretValue(role.name, "second"))
	require.NoError(t, connect(nil), "the very session that meets the new password is opened")
	require.Equal(t, reads+1, store.reads.Load())
}

func TestALoginOfAURLIsRefusedOnce(t *testing.T) {
	t.Parallel()
	_, err := NewURLLogin("", "test")
	require.EqualError(t, err, "DATABASE_URL is empty")
	_, err = NewURLLogin("postgres://x:secret@[::1", "test")
	require.ErrorContains(t, err, "DATABASE_URL: ")
	require.NotContains(t, err.Error(), "secret")
	login, err := NewURLLogin(pgtest.New(t).URL, "test")
	require.NoError(t, err)
	conn, err := login.Connect(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	require.False(t, login.MayBeRotating(), "the password is not in a secret")
}
