package rdsdb

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/internal/pgsession"
)

const (
	// maxConns: a Lambda environment serves one request at a time. The second connection is for the moment in which the first
	// is replaced. The instance's max_connections bounds environments times this.
	maxConns = 2
	// connectTimeout and poolLimits end well before API Gateway gives up after 29 seconds. So the
	// client gets our answer, and no request waits for a lock after its client is gone.
	connectTimeout = 5 * time.Second
)

// poolLimits are the limits of a Pool's sessions. IdleInTransaction frees the row locks of an
// environment that was frozen or killed in the middle of a transaction.
var poolLimits = pgsession.Limits{Statement: 10 * time.Second, IdleInTransaction: 10 * time.Second}

// Config says which database. The comment at each field names the environment variable that
// ConfigFromEnv takes it from.
type Config struct {
	Host      string // DB_HOST: the instance's endpoint address, the name in its certificate
	Port      uint16 // DB_PORT, 5432 when unset
	Name      string // DB_NAME: the database
	User      string // DB_USER: must be the secret's username
	SecretARN string // DB_SECRET_ARN: secret with `{"username","password"}`
	// DB_SSL: "true" demands TLS with a certificate of Amazon RDS for Host; "false" is for a server on this machine.
	SSL bool

	ApplicationName string // how the server's views and log call the sessions
}

// ConfigFromEnv reads the DB_* variables by getenv, which is os.Getenv in a main.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	config := Config{
		Host: getenv("DB_HOST"), Port: 5432, Name: getenv("DB_NAME"), User: getenv("DB_USER"), SecretARN: getenv("DB_SECRET_ARN"),
	}
	var errs []error
	if s := getenv("DB_PORT"); s != "" {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil || port == 0 {
			errs = append(errs, fmt.Errorf("DB_PORT is %q: set it to the port of the instance, such as 5432", s))
		}
		config.Port = uint16(port)
	}
	switch s := getenv("DB_SSL"); s {
	case "true":
		config.SSL = true
	case "false":
	default: // not false: a typing mistake must not send the password in the clear
		errs = append(errs, fmt.Errorf("DB_SSL is %q: set it to true (RDS) or false (a server on this machine)", s))
	}
	return config, errors.Join(errs...)
}

func (c Config) validate() error {
	var errs []error
	for _, field := range []struct{ value, name, is string }{
		{c.Host, "DB_HOST (Host)", "the endpoint address of the instance (stack output DatabaseEndpoint)"},
		{c.Name, "DB_NAME (Name)", "the name of the database"},
		{c.User, "DB_USER (User)", "the user that the secret is of"},
		{c.SecretARN, "DB_SECRET_ARN (SecretARN)", "the ARN of the user's secret (stack output DatabaseSecretArn)"},
		{c.ApplicationName, "ApplicationName", "the program's name"},
	} {
		if field.value == "" {
			errs = append(errs, fmt.Errorf("%s is empty: set it to %s", field.name, field.is))
		}
	}
	if c.Port == 0 {
		errs = append(errs, errors.New("DB_PORT (Port) is 0: set it to the port of the instance, such as 5432"))
	}
	return errors.Join(errs...)
}

//go:generate sh rds-ca-bundle.sh
//go:embed rds-ca-bundle.pem
var caBundle string

// amazonRoots parses the roots of the region in host, as in x.y.us-east-1.rds.amazonaws.com, or all
// of them if host names no region. To parse all 87 takes a cold start as long as everything else in
// its init. The system's certificates are not used, because only Amazon RDS may say who the server
// is.
func amazonRoots(host string) *x509.CertPool {
	roots, found := x509.NewCertPool(), false
	labels := strings.Split(host, ".")
	for root := range strings.SplitSeq(caBundle, "\n# ") {
		name, _, _ := strings.Cut(root, "\n")
		if slices.ContainsFunc(strings.Fields(name), func(word string) bool { return slices.Contains(labels, word) }) {
			found = roots.AppendCertsFromPEM([]byte(root)) || found
		}
	}
	if !found {
		roots.AppendCertsFromPEM([]byte(caBundle))
	}
	return roots
}

// connConfig returns a configuration without a password. It calls roots only when TLS is wanted.
func (c Config) connConfig(roots func(host string) *x509.CertPool, limits pgsession.Limits) (*pgx.ConnConfig, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	conn, err := pgsession.ParseConfig(noTLS)
	if err != nil {
		return nil, err
	}
	conn.Host, conn.Port, conn.Database, conn.User, conn.Password = c.Host, c.Port, c.Name, c.User, ""
	conn.Fallbacks = nil
	conn.ConnectTimeout = connectTimeout
	conn.RuntimeParams = map[string]string{} // drops what the environment says, such as PGOPTIONS
	conn.DialFunc = dialer.DialContext
	pgsession.Fix(conn, c.ApplicationName, limits)
	if limits.Statement > 0 {
		limitSilence(&conn.Config, limits.Statement+silenceGrace)
	}
	if c.SSL {
		// With ServerName and RootCAs, crypto/tls checks what libpq calls verify-full.
		conn.TLSConfig = &tls.Config{ServerName: c.Host, RootCAs: roots(c.Host), MinVersion: tls.VersionTLS12}
	}
	return conn, nil
}

// noTLS keeps pgx from making a TLS configuration of its own, whose default falls back to no TLS. Everything else is set as fields
// instead of in a connection string: no value needs quoting.
const noTLS = "sslmode=disable sslnegotiation=postgres"

// poolConfig leaves the password to BeforeConnect.
func (c Config) poolConfig(roots func(host string) *x509.CertPool) (*pgxpool.Config, error) {
	conn, err := c.connConfig(roots, poolLimits)
	if err != nil {
		return nil, err
	}
	config, err := pgsession.ParsePoolConfig(noTLS)
	if err != nil {
		return nil, err
	}
	config.MaxConns = maxConns
	config.PingTimeout = PingTimeout
	config.ConnConfig = conn
	return config, nil
}
