package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"rds-outbox-demo/lab/domain"
)

const (
	// token marks the entities that the steps of run.sh create. They are all of the kind of number 0.
	token = "Rehearsed"
	zero  = 0
)

// request prints API Gateway's request in the file, with the body that creates an entity.
func request(file string) error {
	var event map[string]any
	if err := read(file, &event); err != nil {
		return err
	}
	event["resource"], event["path"], event["body"] = domain.Path, domain.Path, domain.Create(zero, token)
	return json.NewEncoder(os.Stdout).Encode(event)
}

// id prints the id of the entity in the function's answer in the file.
func id(file string) error {
	var answer struct {
		StatusCode int
		Body       string
	}
	if err := read(file, &answer); err != nil {
		return err
	}
	_, id := domain.Read([]byte(answer.Body))
	if answer.StatusCode != http.StatusCreated || id == "" {
		return fmt.Errorf("the answer is %d: %s", answer.StatusCode, answer.Body)
	}
	_, err := fmt.Fprintln(os.Stdout, id)
	return err
}

// event checks that the event in the file is that of the entity's creation.
func event(id, file string) error {
	var event struct {
		Source     string
		DetailType string `json:"detail-type"`
		Detail     struct {
			AggregateID      string
			AggregateVersion int
			EventData        json.RawMessage
		}
	}
	if err := read(file, &event); err != nil {
		return err
	}
	if d := event.Detail; event.Source != "outbox."+strings.ToLower(domain.AggregateType) || event.DetailType != domain.Created ||
		d.AggregateID != id || d.AggregateVersion != 1 || domain.Token(d.EventData) != token {
		return errors.New("not the event of " + id)
	}
	return nil
}

// counted prints a statement that returns `counted once` when carStats has counted one entity.
func counted() error {
	_, err := fmt.Fprintf(os.Stdout, "SELECT 'counted once' AS it WHERE %s = 1;\n", domain.Counted)
	return err
}

func read(file string, v any) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}
