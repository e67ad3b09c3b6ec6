package walrelay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pglogrepl"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// decoder turns the pgoutput messages of one connection, protocol version 1, into records. It keeps the
// facts that the protocol sends only once. These are the columns of each relation, and the commit that the
// following changes belong to.
// Format: https://www.postgresql.org/docs/17/protocol-logicalrep-message-formats.html
type decoder struct {
	slot     string
	outboxID uint32              // relation id of public.outbox when streaming began
	outboxes map[uint32][]string // by relation id of public.outbox, its columns. Other relations are not kept.
	final    pglogrepl.LSN       // of the transaction being received
	commit   outbox.Commit       // of the latest change

	aggregateType, eventType string // of the latest row. Mostly the next row has the same.
}

// outboxColumns are what a Record needs.
var outboxColumns = []string{
	"id", "aggregate_type", "aggregate_id", "aggregate_version", "event_type", "event_data", "traceparent", "created_at",
}

type change int

const (
	changeNone   change = iota // nothing for the pipeline
	changeBegin                // a transaction begins
	changeInsert               // record holds an event
	changeCommit               // end holds the transaction's end LSN
)

// decoded is one message. The record's payload shares memory with the message.
type decoded struct {
	change change
	record outbox.Record
	end    pglogrepl.LSN
}

// decode reads one message that stands at start in the WAL. An error is a *decodeError. The stream cannot be
// understood, and the connection has to end, because skipping a change would lose an event.
func (d *decoder) decode(start pglogrepl.LSN, message []byte) (decoded, error) {
	if len(message) == 0 {
		return decoded{}, &decodeError{errors.New("decoding pgoutput: empty message")}
	}
	r := reader{rest: message[1:]}
	var result decoded
	var err error
	switch message[0] {
	case 'B':
		d.final = pglogrepl.LSN(r.uint64())
		d.commit = outbox.Commit{Time: pgTime(r.uint64()), TransactionID: r.uint32()}
		result.change = changeBegin
	case 'C':
		r.uint8()  // flags
		r.uint64() // The commit LSN is unused. A slot is confirmed up to the end LSN, which follows.
		result = decoded{change: changeCommit, end: pglogrepl.LSN(r.uint64())}
		r.uint64() // commit time
	case 'R':
		err = d.relation(&r)
	case 'I':
		result, err = d.insert(start, &r)
	case 'M':
		err = d.message(&r)
	case 'U', 'D', 'T', 'O', 'Y':
		// The publication leaves out update, delete and truncate, and none of them is an event.
		// Origin and type do not concern outbox.
	default:
		err = fmt.Errorf("message type %q is not of protocol version 1", message[0])
	}
	if err == nil && r.short {
		err = errors.New("message is cut off")
	}
	if err != nil {
		return decoded{}, &decodeError{fmt.Errorf("decoding pgoutput %q at %s: %w", message[0], start, err)}
	}
	return result, nil
}

func (d *decoder) relation(r *reader) error {
	id := r.uint32()
	namespace, name := r.text(), r.text()
	r.uint8() // replica identity
	columns := make([]string, 0, 8)
	for range r.uint16() {
		r.uint8() // flags
		columns = append(columns, r.text())
		r.uint32() // type
		r.uint32() // type modifier
		if r.short {
			return nil // decode reports it
		}
	}
	delete(d.outboxes, id) // an id may be used again for another relation
	// The publication follows a table that is renamed. So rows that are written while the table has
	// another name are outbox's, too.
	if id != d.outboxID && (namespace != "public" || name != "outbox") {
		return nil
	}
	for _, column := range outboxColumns {
		if !slices.Contains(columns, column) {
			return &SetupError{
				fmt.Sprintf("column %s of outbox is missing from the WAL", column),
				"make sure that the table has every column of the migrations, and the publication no column list; then " + dropSlot(d.slot),
			}
		}
	}
	d.outboxes[id] = columns
	return nil
}

// message returns an error for the mark of an earlier relay, which says that inserts are missing
// from the WAL. Other messages do not concern outbox.
func (d *decoder) message(r *reader) error {
	r.uint8()  // flags
	r.uint64() // LSN
	prefix := r.text()
	content := r.bytes(int(r.uint32()))
	if prefix == markPrefix && string(content) == d.slot {
		return marked(d.slot)
	}
	return nil
}

func (d *decoder) insert(start pglogrepl.LSN, r *reader) (decoded, error) {
	columns, ours := d.outboxes[r.uint32()]
	if !ours {
		return decoded{}, nil
	}
	if tuple := r.uint8(); tuple != 'N' {
		return decoded{}, fmt.Errorf("tuple type %q", tuple)
	}
	if n := int(r.uint16()); n != len(columns) {
		return decoded{}, fmt.Errorf("%d columns, the relation has %d", n, len(columns))
	}
	row, err := d.decodeRow(columns, r)
	if err != nil {
		return decoded{}, err
	}
	d.commit.Sequence++
	d.commit.StreamPosition = streamPosition(start, d.commit.Sequence, d.final)
	return decoded{change: changeInsert, record: outbox.Record{
		Row: row, Operation: outbox.OperationInsert, Timestamp: time.Now(), Commit: d.commit,
	}}, nil
}

// decodeRow reads the columns that it knows. It leaves out a column that a later migration adds.
func (d *decoder) decodeRow(columns []string, r *reader) (dbgen.Outbox, error) {
	var row dbgen.Outbox
	for _, column := range columns {
		kind := r.uint8()
		if kind == 'n' {
			continue
		}
		if kind != 't' {
			return row, fmt.Errorf("column %s arrives as %q, not as text", column, kind)
		}
		value := r.bytes(int(r.uint32()))
		if r.short {
			return row, nil // decode reports it
		}
		var err error
		switch column {
		case "id":
			row.ID, err = uuid.ParseBytes(value)
		case "aggregate_type":
			row.AggregateType = again(&d.aggregateType, value)
		case "aggregate_id":
			row.AggregateID = string(value)
		case "aggregate_version":
			row.AggregateVersion, err = strconv.ParseInt(string(value), 10, 64)
		case "event_type":
			row.EventType = again(&d.eventType, value)
		case "event_data":
			row.EventData = value
		case "created_at":
			// The connection asks for TimeZone UTC and DateStyle ISO.
			row.CreatedAt, err = time.Parse("2006-01-02 15:04:05.999999-07", string(value))
			row.CreatedAt = row.CreatedAt.UTC()
		case "traceparent":
			traceparent := string(value)
			row.Traceparent = &traceparent
		}
		if err != nil {
			return row, fmt.Errorf("column %s: %w", column, err)
		}
	}
	return row, nil
}

// again returns value as a string. It reuses *latest if that is equal, to save an allocation per row.
func again(latest *string, value []byte) string {
	if *latest != string(value) {
		*latest = string(value)
	}
	return *latest
}

// streamPosition returns a position in the shape of DMS's stream-position, which has the change's LSN, its
// place in the transaction, and the commit's LSN.
func streamPosition(start pglogrepl.LSN, sequence int, commit pglogrepl.LSN) string {
	b := make([]byte, 0, 48)
	b = append(strconv.AppendInt(append(appendLSN(b, start), '.'), int64(sequence), 10), '.')
	return string(appendLSN(b, commit))
}

// appendLSN writes an LSN as DMS does, 00000000/0190F400. By hand, because it is done twice a row.
func appendLSN(b []byte, lsn pglogrepl.LSN) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789ABCDEF"[lsn>>shift&15])
		if shift == 32 {
			b = append(b, '/')
		}
	}
	return b
}

// pgTime converts microseconds since 2000-01-01, PostgreSQL's epoch.
func pgTime(micros uint64) time.Time {
	const epoch = 946684800 * 1e6
	return time.UnixMicro(int64(micros) + epoch).UTC()
}

// reader reads big-endian fields. short reports that the message ended too early.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.rest, r.short = nil, true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads a string that ends with a NUL.
func (r *reader) text() string {
	end := bytes.IndexByte(r.rest, 0)
	if end < 0 {
		r.rest, r.short = nil, true
		return ""
	}
	s := string(r.rest[:end])
	r.rest = r.rest[end+1:]
	return s
}
