package outbox

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"rds-outbox-demo/dbgen"
)

// Two operations bring an event. load is a row of the initial load, and insert is a change read from the WAL.
const (
	OperationInsert = "insert"
	OperationLoad   = "load"
)

// Record is one event on the stream (④) in the shape that DMS gives it with MessageFormat json-unformatted. Its partition key
// is Row.AggregateID.
type Record struct {
	Row       dbgen.Outbox
	Operation string    // OperationInsert or OperationLoad
	Timestamp time.Time // when DMS or walrelay made the record, not when the row was committed
	Commit    Commit    // zero with OperationLoad, and where a DMS task leaves transaction details out
	Replay    string    // id of the replay that sent the row again (ValidReplayID), or ""
}

// Commit places a change in the WAL.
type Commit struct {
	Time           time.Time
	TransactionID  uint32 // xid
	Sequence       int    // 1, 2, 3 ...: place of the change in its transaction
	StreamPosition string // position in the WAL; opaque to readers
}

// wireRow and wireMetadata are the JSON of a Record, as ParseRecord reads it.
type wireRow struct {
	ID               string          `json:"id"`
	AggregateType    string          `json:"aggregate_type"`
	AggregateID      string          `json:"aggregate_id"`
	AggregateVersion json.RawMessage `json:"aggregate_version"` // not json.Number, because another table's text would end the reading
	EventType        string          `json:"event_type"`
	EventData        json.RawMessage `json:"event_data"` // a JSON string that holds the jsonb's text, so it is decoded twice
	Traceparent      *string         `json:"traceparent"`
	CreatedAt        string          `json:"created_at"`
}

type wireMetadata struct {
	Timestamp         string `json:"timestamp"`
	RecordType        string `json:"record-type"`
	Operation         string `json:"operation"`
	PartitionKeyType  string `json:"partition-key-type"`
	PartitionKeyValue string `json:"partition-key-value,omitempty"`
	SchemaName        string `json:"schema-name"`
	TableName         string `json:"table-name"`
	TransactionID     uint32 `json:"transaction-id,omitempty"`
	TransactionRecord int    `json:"transaction-record-id,omitempty"`
	CommitTimestamp   string `json:"commit-timestamp,omitempty"`
	StreamPosition    string `json:"stream-position,omitempty"`
	ReplayID          string `json:"replay-id,omitempty"` // ours; DMS writes no such member
}

// AppendJSON appends the record as one line of JSON, without a newline, as DMS writes it. The error is that of a payload which
// is not UTF-8 (PostgreSQL stores none in a UTF8 database) or of a replay id that readers would not take for one.
func (r Record) AppendJSON(dst []byte) ([]byte, error) {
	if !utf8.Valid(r.Row.EventData) {
		return nil, fmt.Errorf("encoding event %s: event_data is not valid UTF-8", r.Row.ID)
	}
	if r.Replay != "" && !ValidReplayID(r.Replay) {
		return nil, fmt.Errorf("encoding event %s: replay id %.100q: use 1 to 64 of A-Z a-z 0-9 . _ -", r.Row.ID, r.Replay)
	}
	return r.append(dst), nil
}

var replayIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidReplayID reports whether id can mark the events of a replay: 1 to 64 of A-Z a-z 0-9 . _ -
func ValidReplayID(id string) bool { return replayIDPattern.MatchString(id) }

// FormatTime is how DMS writes a timestamp: RFC 3339 in UTC, six digits of fraction or none.
func FormatTime(t time.Time) string { return string(appendTime(nil, t)) }
