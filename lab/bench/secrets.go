package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/awslocal"
)

// secretName is of the secret that holds the login of the bench's database.
const secretName = "bench"

// secrets is a local Secrets Manager with that secret.
type secrets struct {
	aws    *awslocal.Server
	server *http.Server
	url    string
	told   atomic.Int64 // when it answered last, in Unix nanoseconds
}

func (e *environment) newSecrets(database string) (*secrets, error) {
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	login, err := json.Marshal(map[string]string{"username": config.User, "password": config.Password})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(e.Dir, "secrets")
	if err != nil {
		return nil, err
	}
	local, err := awslocal.Open(awslocal.Config{Dir: dir, Secrets: map[string]string{secretName: string(login)}})
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", errors.Join(err, local.Close()))
	}
	s := &secrets{aws: local, url: "http://" + listener.Addr().String()}
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local.ServeHTTP(w, r)
		s.told.Store(time.Now().UnixNano())
	})}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *secrets) sdk() aws.Config { return awslocal.SDKConfig(s.url) }

func (s *secrets) close() {
	_ = s.aws.Close()
	_ = s.server.Close()
}
