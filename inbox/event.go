package inbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"rds-outbox-demo/outbox"
)

// Event is one event as a subscriber gets it. All but Replay is the same in every delivery of it.
type Event struct {
	ID            uuid.UUID
	AggregateType string
	AggregateID   string
	Version       int64 // 1, 2, 3 ... per aggregate
	Type          string
	Data          json.RawMessage // a JSON object
	Timestamp     time.Time       // UTC: when the writing transaction began
	Traceparent   string          // W3C; empty for none
	Replay        string          // id of the replay that sent it, or ""
}

// TraceID is the 32 hex digits by which the request that made the event is found at every hop, "" when there are none. Log it.
func (e Event) TraceID() string { return outbox.TraceID(e.Traceparent) }

// ParseEvent reads an event of the path from EventBridge's envelope, which is the body of a message where the rule's target is an SQS
// queue (without an input transformer). The error says what is wrong. An event that does not parse now never will.
func ParseEvent(envelope []byte) (Event, error) {
	// encoding/json would quietly replace what is not UTF-8.
	if !utf8.Valid(envelope) {
		return Event{}, errors.New("not an EventBridge event: not valid UTF-8")
	}
	var wire struct {
		DetailType string          `json:"detail-type"`
		Source     string          `json:"source"`
		Resources  []string        `json:"resources"`
		Detail     json.RawMessage `json:"detail"`
	}
	if err := json.Unmarshal(envelope, &wire); err != nil {
		return Event{}, fmt.Errorf("not an EventBridge event: %w", err)
	}
	var detail struct {
		AggregateID      string          `json:"aggregateId"`
		AggregateType    string          `json:"aggregateType"`
		AggregateVersion int64           `json:"aggregateVersion"`
		EventID          uuid.UUID       `json:"eventId"`
		EventData        json.RawMessage `json:"eventData"`
		Timestamp        time.Time       `json:"timestamp"`
		Traceparent      string          `json:"traceparent"`
	}
	if len(wire.Detail) == 0 || wire.Detail[0] != '{' {
		return Event{}, errors.New("not an EventBridge event: it has no detail")
	}
	if err := json.Unmarshal(wire.Detail, &detail); err != nil {
		return Event{}, fmt.Errorf("reading the detail: %w", err)
	}
	e := Event{
		ID: detail.EventID, AggregateType: detail.AggregateType, AggregateID: detail.AggregateID, Version: detail.AggregateVersion,
		Type: wire.DetailType, Data: detail.EventData, Timestamp: detail.Timestamp.UTC(), Traceparent: detail.Traceparent,
	}
	switch {
	case e.ID == uuid.Nil:
		return Event{}, errors.New("reading the detail: eventId is missing")
	case e.AggregateType == "" || e.AggregateID == "":
		return Event{}, fmt.Errorf("event %s: aggregateType or aggregateId is missing", e.ID)
	case e.Version < 1:
		return Event{}, fmt.Errorf("event %s: aggregateVersion is %d", e.ID, e.Version)
	case e.Type == "":
		return Event{}, fmt.Errorf("event %s: detail-type is missing", e.ID)
	case wire.Source != "outbox."+strings.ToLower(e.AggregateType):
		return Event{}, fmt.Errorf("event %s: source %.120q is not that of aggregateType %.100q", e.ID, wire.Source, e.AggregateType)
	case !bytes.HasPrefix(e.Data, []byte("{")):
		return Event{}, fmt.Errorf("event %s: eventData is not a JSON object", e.ID)
	case detail.Timestamp.IsZero():
		return Event{}, fmt.Errorf("event %s: timestamp is missing", e.ID)
	}
	for _, resource := range wire.Resources {
		if id, ok := strings.CutPrefix(resource, "replay/"); ok && outbox.ValidReplayID(id) {
			e.Replay = id
		}
	}
	return e, nil
}
