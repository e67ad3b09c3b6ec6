package dev

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"rds-outbox-demo/lab/local"
)

// controlFile tells other programs of this user how to reach a running `make dev`.
type controlFile struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

func controlPath(dir string) string { return filepath.Join(dir, "control.json") }

// serveControl listens for Control on 127.0.0.1. A token from a file that only this user can read keeps others, and pages in a
// browser, away.
func serveControl(dir string, relay *local.Relay) (stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for commands: %w", err)
	}
	file := controlFile{URL: "http://" + listener.Addr().String(), Token: rand.Text()}
	content, err := json.Marshal(file)
	if err == nil {
		err = os.WriteFile(controlPath(dir), content, 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", controlPath(dir), err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /relay/stop", func(w http.ResponseWriter, r *http.Request) {
		relay.Stop(context.WithoutCancel(r.Context())) // also when the client has gone, because a relay must not stay half stopped
		fmt.Fprintln(w, "relay stopped: commits wait in the WAL")
	})
	mux.HandleFunc("POST /relay/start", func(w http.ResponseWriter, _ *http.Request) {
		if err := relay.Start(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "relay started")
	})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+file.Token)) != 1 {
			http.Error(w, "wrong token", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	return func() {
		_ = server.Close()
		_ = os.Remove(controlPath(dir))
	}, nil
}

// Control asks the `make dev` that runs on dir to stop or start its relay, and prints its answer.
func Control(ctx context.Context, dir, action string) error {
	if action != "stop" && action != "start" {
		return fmt.Errorf("relay %q: say stop or start", action)
	}
	content, err := os.ReadFile(controlPath(dir))
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	var file controlFile
	if err := json.Unmarshal(content, &file); err != nil {
		return fmt.Errorf("reading %s: %w", controlPath(dir), err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, file.URL+"/relay/"+action, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+file.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("relay %s: %s", action, bytes.TrimSpace(answer))
	}
	_, err = os.Stdout.Write(answer)
	return err
}
