package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
)

// Skip says why a well-formed DMS record is not an event of ours. The consumer counts each kind.
type Skip string

const (
	SkipNothing       Skip = ""               // it is an event
	SkipControl       Skip = "control"        // DMS tells that a table was created, changed or dropped
	SkipInternalTable Skip = "internal-table" // DMS's own awsdms_status, awsdms_history ...
	SkipOtherTable    Skip = "other-table"    // a table that is not public.outbox
	SkipDelete        Skip = "delete"         // retention removed the row
	SkipOperation     Skip = "operation"      // any other operation on public.outbox
)

// ParseRecord reads one record of the stream, from DMS or from walrelay. There are three results. The record is an event (nil and
// SkipNothing), or it is a well-formed DMS record but not an event of ours (Skip names its kind), or the error says why it never can be an
// event. Such a record is not a DMS record at all, or is one of our table that cannot be decoded.
func ParseRecord(data []byte) (Record, Skip, error) {
	// encoding/json would quietly replace what is not UTF-8.
	if !utf8.Valid(data) {
		return Record{}, SkipNothing, errors.New("not a DMS record: not valid UTF-8")
	}
	// One pass reads everything. A member of another type is left out. The members that decide are checked below.
	var wire struct {
		Data     *wireRow      `json:"data"`
		Metadata *readMetadata `json:"metadata"`
	}
	var mismatch *json.UnmarshalTypeError
	if err := json.Unmarshal(data, &wire); err != nil && !errors.As(err, &mismatch) {
		return Record{}, SkipNothing, fmt.Errorf("not a DMS record: %w", err)
	}
	if mismatch != nil {
		// json reports only the first mismatch, and the pointer to a member that did not fit is not nil. A table-name that is not a
		// string would count as another table's.
		var decides struct {
			Metadata struct {
				RecordType string `json:"record-type"`
				Operation  string `json:"operation"`
				SchemaName string `json:"schema-name"`
				TableName  string `json:"table-name"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(data, &decides); err != nil {
			return Record{}, SkipNothing, fmt.Errorf("not a DMS record: %w", err)
		}
	}
	if err := wire.Metadata.check(); err != nil {
		return Record{}, SkipNothing, fmt.Errorf("not a DMS record: %w", err)
	}
	meta := wire.Metadata.wireMetadata
	if skip := wire.Metadata.skip(); skip != SkipNothing {
		return Record{}, skip, nil
	}
	if mismatch != nil {
		// Members that only inform may have any type, because a row of ours has no mismatch.
		var row struct {
			Data *wireRow `json:"data"`
		}
		if err := json.Unmarshal(data, &row); err != nil {
			return Record{}, SkipNothing, fmt.Errorf("decoding a record of public.outbox: %w", err)
		}
	}
	row, err := parseRow(wire.Data)
	if err != nil {
		return Record{}, SkipNothing, fmt.Errorf("decoding a record of public.outbox: %w", err)
	}
	record := Record{Row: row, Operation: *wire.Metadata.Operation}
	// It only informs, and many tasks do not write it, so an event is not refused without it.
	record.Timestamp, _ = parseTime(meta.Timestamp)
	record.Commit.Time, _ = parseTime(meta.CommitTimestamp)
	record.Commit.TransactionID = meta.TransactionID
	record.Commit.Sequence = meta.TransactionRecord
	record.Commit.StreamPosition = meta.StreamPosition
	// An invalid marker is ignored. It never makes an event poison.
	if ValidReplayID(meta.ReplayID) {
		record.Replay = meta.ReplayID
	}
	return record, SkipNothing, nil
}

// readMetadata distinguishes absent members from empty ones, because awsdms_status has an empty schema-name.
type readMetadata struct {
	wireMetadata
	Operation  *string `json:"operation"`
	SchemaName *string `json:"schema-name"`
	TableName  *string `json:"table-name"`
}

// check returns why this is not metadata of DMS. It looks only at members that decide. The others may be absent.
func (m *readMetadata) check() error {
	switch {
	case m == nil:
		return errors.New("no metadata object")
	case m.RecordType == "":
		return errors.New("metadata has no record-type")
	case m.RecordType != "data" && m.RecordType != "control":
		return fmt.Errorf("metadata has record-type %.40q", m.RecordType)
	case m.Operation == nil:
		return errors.New("metadata has no operation")
	case m.RecordType == "data" && (m.SchemaName == nil || m.TableName == nil):
		return errors.New("metadata has no schema-name and table-name")
	}
	return nil
}

// skip is for metadata that was checked.
func (m *readMetadata) skip() Skip {
	switch {
	case m.RecordType == "control":
		return SkipControl
	case strings.HasPrefix(*m.TableName, "awsdms_"):
		return SkipInternalTable
	case *m.SchemaName != "public" || *m.TableName != "outbox":
		return SkipOtherTable
	case *m.Operation == OperationInsert || *m.Operation == OperationLoad:
		return SkipNothing
	case *m.Operation == "delete":
		return SkipDelete
	default:
		return SkipOperation
	}
}

func parseRow(wire *wireRow) (dbgen.Outbox, error) {
	if wire == nil {
		return dbgen.Outbox{}, errors.New("no data object")
	}
	row := dbgen.Outbox{
		AggregateType: wire.AggregateType,
		AggregateID:   wire.AggregateID,
		EventType:     wire.EventType,
		Traceparent:   wire.Traceparent,
	}
	var err error
	if row.ID, err = uuid.Parse(wire.ID); err != nil {
		return dbgen.Outbox{}, fmt.Errorf("id %.40q: %w", wire.ID, err)
	}
	// The table takes no longer values, but anybody with access to the stream can write them.
	for _, required := range []struct {
		column, value string
		limit         int // characters
	}{
		{"aggregate_type", row.AggregateType, MaxTypeChars},
		{"aggregate_id", row.AggregateID, MaxAggregateIDChars},
		{"event_type", row.EventType, MaxTypeChars},
	} {
		if required.value == "" {
			return dbgen.Outbox{}, fmt.Errorf("%s is missing", required.column)
		}
		if n := utf8.RuneCountInString(required.value); n > required.limit {
			return dbgen.Outbox{}, fmt.Errorf("%s has %d characters: at most %d", required.column, n, required.limit)
		}
	}
	// DMS writes a BIGINT of more than 16 digits as 1.23E+17: rounded, so it would be a wrong version.
	version := strings.Trim(string(wire.AggregateVersion), `"`)
	if row.AggregateVersion, err = strconv.ParseInt(version, 10, 64); err != nil {
		return dbgen.Outbox{}, fmt.Errorf("aggregate_version %.40q is not an exact integer", version)
	}
	if row.CreatedAt, err = parseTime(wire.CreatedAt); err != nil {
		return dbgen.Outbox{}, fmt.Errorf("created_at %.40q is not a time of RFC 3339", wire.CreatedAt)
	}
	if row.EventData, err = parseEventData(wire.EventData); err != nil {
		return dbgen.Outbox{}, fmt.Errorf("event_data: %w", err)
	}
	return row, nil
}

// parseEventData accepts the jsonb as DMS sends it, as text in a JSON string, and as the object itself.
func parseEventData(data json.RawMessage) (json.RawMessage, error) {
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		return nil, errors.New("is missing")
	}
	if data[0] == '"' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return nil, err
		}
		data = json.RawMessage(text)
		if !json.Valid(data) {
			return nil, errors.New("is not valid JSON: cut off by the task's LobMaxSize?")
		}
	}
	if data = bytes.TrimSpace(data); data[0] != '{' {
		return nil, errors.New("is not a JSON object")
	}
	return data, nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s) // accepts a fraction, too
	return t.UTC(), err
}
