package rdsdb

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
)

const testARN = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:rds!db-test"

// secretStore is Secrets Manager for one secret, reached through the real SDK.
type secretStore struct {
	client *secretsmanager.Client
	reads  atomic.Int32

	mu    sync.Mutex
	value string
}

func newSecretStore(t testing.TB, value string) *secretStore {
	t.Helper()
	store := &secretStore{value: value}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	store.client = secretsmanager.New(secretsmanager.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		RetryMaxAttempts: 1,
	})
	return store
}

func (s *secretStore) set(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

func (s *secretStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.reads.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	var input struct{ SecretId string } //nolint:revive // the service's name
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || json.NewDecoder(r.Body).Decode(&input) != nil || input.SecretId != testARN {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ResourceNotFoundException","Message":"Secrets Manager can't find the specified secret."}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"ARN": testARN, "SecretString": s.value})
}

func secretValue(user, password string) string {
	value, _ := json.Marshal(map[string]string{"username": user, "password": password})
	return string(value)
}

// configOf is the configuration of a test's own database without TLS, and the secret of its user.
func configOf(t testing.TB, db *pgtest.DB) (Config, string) {
	t.Helper()
	url, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	return Config{
		Host: url.Host, Port: url.Port, Name: url.Database, User: url.User, SecretARN: testARN, ApplicationName: "rdsdb-test",
	}, secretValue(url.User, url.Password)
}

func open(t testing.TB, config Config, store *secretStore, roots *x509.CertPool) *Pool {
	t.Helper()
	pool, err := newPool(config, store.client, func(string) *x509.CertPool { return roots })
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// query asks the database through one acquired connection.
func query(t testing.TB, pool *Pool, sql string) (string, error) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		return "", err
	}
	defer conn.Release()
	var s string
	err = conn.QueryRow(t.Context(), sql).Scan(&s)
	return s, err
}

// tlsFront stands before the test's server, which has no TLS, and speaks TLS for it. Without a certificate it refuses TLS.
func tlsFront(t testing.TB, behind string, certificate *tls.Certificate) (port uint16) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			group.Go(func() { serveTLS(conn, behind, certificate) })
		}
	})
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

func serveTLS(conn net.Conn, behind string, certificate *tls.Certificate) {
	defer conn.Close()
	sslRequest := make([]byte, 8)
	if _, err := io.ReadFull(conn, sslRequest); err != nil {
		return
	}
	if certificate == nil {
		_, _ = conn.Write([]byte("N"))
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	if _, err := conn.Write([]byte("S")); err != nil {
		return
	}
	client := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12})
	if client.Handshake() != nil {
		return
	}
	server, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// authority is a CA of a test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// server signs a server certificate for name.
func (a authority) server(t testing.TB, name string, until time.Time) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
