// Package rdsdb is how a program reaches PostgreSQL on Amazon RDS, which is through a Pool, by single sessions for weeks (Login), or by one
// session (ConnConfig).
//
// In: the DB_* settings and a Secrets Manager client. Out: connections that are encrypted and verified (unless DB_SSL is false). Those
// of a Pool are made when they are first needed. A Pool and a Login read the new password after a rotation.
package rdsdb

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/internal/pgsession"
)

// Pool is made once per process and kept.
type Pool struct {
	pool   *pgxpool.Pool
	secret *secret
}

// New checks the configuration. It asks neither the database nor Secrets Manager. The first Acquire
// does.
func New(config Config, secrets *secretsmanager.Client) (*Pool, error) {
	return newPool(config, secrets, amazonRoots)
}

func newPool(config Config, secrets *secretsmanager.Client, roots func(host string) *x509.CertPool) (*Pool, error) {
	poolConfig, err := config.poolConfig(roots)
	if err != nil {
		return nil, fmt.Errorf("configuring the database: %w", err)
	}
	s := &secret{client: secrets, arn: config.SecretARN, user: config.User}
	poolConfig.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) (err error) {
		conn.Password, err = s.get(ctx)
		return err
	}
	// This context is for the connections of MinConns, which is 0.
	pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig)
	if err != nil {
		return nil, fmt.Errorf("configuring the database: %w", err)
	}
	return &Pool{pool: pool, secret: s}, nil
}

// ConnConfig returns the configuration for one piece of work on few sessions, such as a migration,
// with the limits that fit it. It reads the password now.
func ConnConfig(ctx context.Context, config Config, secrets *secretsmanager.Client, limits pgsession.Limits) (*pgx.ConnConfig, error) {
	conn, err := config.connConfig(amazonRoots, limits)
	if err != nil {
		return nil, fmt.Errorf("configuring the database: %w", err)
	}
	conn.Password, err = (&secret{client: secrets, arn: config.SecretARN, user: config.User}).get(ctx)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Acquire lends a connection. Give it back with Release. When the server refuses the login, the
// password has probably been rotated since it was read. Acquire then reads it again and tries once
// more, which is safe because nothing was sent yet.
func (p *Pool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := p.pool.Acquire(ctx)
	if !loginRefused(err) {
		return conn, err
	}
	p.secret.forget()
	return p.pool.Acquire(ctx)
}

// Close ends all connections. It waits for those that are lent out.
func (p *Pool) Close() { p.pool.Close() }

func loginRefused(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	// invalid_password; invalid_authorization_specification
	return pgErr.Code == "28P01" || pgErr.Code == "28000"
}
