package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"rds-outbox-demo/lab/domain"
)

// control tells other programs of this user how to reach the live view of a running `make dev`.
type control struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

const controlFile = "control.json"

// leave writes a file for other programs of this user, who alone may read it. It is removed with the path.
func leave(dir, name string, content []byte) (remove func(), err error) {
	path := filepath.Join(dir, name)
	_ = os.Remove(path) // of a run that was killed; WriteFile would keep its mode
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return func() { _ = os.Remove(path) }, nil
}

// Control asks the `make dev` that runs on dir to stop or start its relay, and prints its answer.
func Control(ctx context.Context, dir, action string) error {
	if action != "stop" && action != "start" {
		return fmt.Errorf("relay %q: say stop or start", action)
	}
	path := filepath.Join(dir, controlFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	var view control
	if err := json.Unmarshal(content, &view); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	status, answer, err := domain.Send(ctx, http.DefaultClient, http.MethodPost, view.URL+"/relay/"+action, "", "X-View-Token", view.Token)
	if err != nil {
		return fmt.Errorf("no `make dev` is running here (%w)", err)
	}
	var said string
	if status != http.StatusOK || json.Unmarshal(answer, &said) != nil {
		return fmt.Errorf("relay %s: %s", action, answer)
	}
	_, err = fmt.Fprintln(os.Stdout, said)
	return err
}
