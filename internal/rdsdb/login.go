package rdsdb

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/internal/pgsession"
)

// Login opens single sessions of one user without limits of time, for a program that runs for weeks. Its methods may be called
// concurrently.
type Login struct {
	config   *pgx.ConnConfig
	secret   *secret     // nil when config has the password
	accepted atomic.Bool // a password of the secret, at least once
}

// databaseURL is the variable of programs that are not functions.
const databaseURL = "DATABASE_URL"

// LoginFromEnv reads DATABASE_URL, or else the variables of ConfigFromEnv, by getenv. It refuses a mixture, because half of one
// database and half of another would look like a working set-up. It does not connect.
func LoginFromEnv(getenv func(string) string, application string, secrets *secretsmanager.Client) (*Login, error) {
	url := getenv(databaseURL)
	if url == "" {
		config, err := ConfigFromEnv(getenv)
		config.ApplicationName = application
		if err := errors.Join(err, config.validate()); err != nil {
			return nil, fmt.Errorf("DATABASE_URL is not set, and of the variables in its place: %w", err)
		}
		return newLogin(config, secrets, amazonRoots)
	}
	for _, name := range []string{"DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "DB_SSL"} {
		if getenv(name) != "" {
			return nil, fmt.Errorf("DATABASE_URL and %s are both set: set DATABASE_URL alone, or only the variables DB_*", name)
		}
	}
	return NewURLLogin(url, application)
}

// NewURLLogin returns a Login whose password is part of a postgres:// URL and never changes.
func NewURLLogin(url, application string) (*Login, error) {
	if url == "" {
		return nil, errors.New("DATABASE_URL is empty") // pgx would take the PG* variables
	}
	config, err := pgsession.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	return NewLogin(config, application), nil
}

// NewLogin returns a Login whose configuration has the password, and may have a way of its own to reach the server. It changes config.
func NewLogin(config *pgx.ConnConfig, application string) *Login {
	pgsession.Fix(config, application, pgsession.Limits{})
	return &Login{config: config}
}

func newLogin(config Config, secrets *secretsmanager.Client, roots func(host string) *x509.CertPool) (*Login, error) {
	conn, err := config.connConfig(roots, pgsession.Limits{})
	if err != nil {
		return nil, fmt.Errorf("configuring the database: %w", err)
	}
	return &Login{config: conn, secret: &secret{client: secrets, arn: config.SecretARN, user: config.User}}, nil
}

// Database returns the name of the database.
func (l *Login) Database() string { return l.config.Database }

// MayBeRotating reports whether a refused password can be the middle of a rotation, between the change of the secret and the
// change of the role. It is not, if no password of the secret was ever accepted.
func (l *Login) MayBeRotating() bool { return l.secret != nil && l.accepted.Load() }

// Connect opens a session. change may be nil, and otherwise changes the session's own copy of the configuration. When the server
// refuses the login, Connect reads the secret again and tries once more.
func (l *Login) Connect(ctx context.Context, change func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	conn, err := l.connect(ctx, change)
	if l.secret == nil || !loginRefused(err) {
		return conn, err
	}
	l.secret.forget()
	return l.connect(ctx, change)
}

func (l *Login) connect(ctx context.Context, change func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	config := l.config.Copy()
	if change != nil {
		change(config)
	}
	if l.secret == nil {
		return pgx.ConnectConfig(ctx, config)
	}
	var err error
	if config.Password, err = l.secret.get(ctx); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		l.accepted.Store(true)
	}
	return conn, err
}
