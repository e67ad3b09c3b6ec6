package sim

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pglogrepl"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/judge"
)

const (
	slotName   = "simulated"
	database   = "simulated"
	relationID = 4711
	aggregates = 8
	kind       = "Simulated" // the type of every aggregate. A Car would need a row of table cars.
	poisonWord = "poison"    // the bus refuses an event with it
)

// wal is table outbox, its publication, the WAL and the slot. world.mu guards it.
type wal struct {
	end       pglogrepl.LSN
	lastRow   pglogrepl.LSN // end of the latest transaction that wrote rows, published or not
	log       []entry
	rows      []dbgen.Outbox // in the order of their commits
	versions  map[string]int64
	xid       uint32
	identity  int  // of the publication
	member    bool // outbox is in the publication
	slot      *slot
	temporary map[*conn]pglogrepl.LSN // the slots of loads
	loading   *conn                   // has the lock of the load
	sessions  int
	trouble   Kind // a change that ends the relay, until the slot is dropped
	since     time.Time

	// Of Broken: the event before the change, its end, and how often the relay has ended since, with a fault in its life or without.
	before      uuid.UUID
	beforeEnd   pglogrepl.LSN
	exits, calm int
}

type slot struct {
	confirmed pglogrepl.LSN
	reader    *conn
}

// entry is one transaction of the WAL that pgoutput shows.
type entry struct {
	start, end pglogrepl.LSN
	xid        uint32
	at         time.Time
	rows       []dbgen.Outbox
	mark       string // the slot that a relay has marked
	broken     bool   // the row has a column that cannot be decoded
}

// grow appends a transaction to the WAL. The caller holds mu.
func (w *world) grow(e entry) {
	w.wal.xid++
	e.xid, e.at, e.start = w.wal.xid, time.Now().Truncate(time.Microsecond), w.wal.end
	w.wal.end += pglogrepl.LSN(100 + w.draw("bytes")%400)
	e.end = w.wal.end
	if len(e.rows) > 0 || e.mark != "" {
		w.wal.log = append(w.wal.log, e)
	}
	w.changed.Broadcast()
}

// write commits a transaction of a few rows, or one that does not write into outbox.
func (w *world) write(drawn uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rows []dbgen.Outbox
	if !w.wal.member {
		drawn = 0 // the order of rows that are left out is not promised
	}
	for i := range drawn % 5 {
		rows = append(rows, w.row(fmt.Sprint("aggregate-", w.draw("aggregate ", i)%aggregates), "{}"))
	}
	w.commit(rows)
}

// row makes the next row of an aggregate. The caller holds mu, and commits the row.
func (w *world) row(aggregate, data string) dbgen.Outbox {
	w.wal.versions[aggregate]++
	version := w.wal.versions[aggregate]
	return dbgen.Outbox{
		ID: w.id(aggregate, version), AggregateType: kind, AggregateID: aggregate, AggregateVersion: version, EventType: "SimulatedChanged",
		EventData: json.RawMessage(data), CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
}

// commit writes rows into the table, and into the WAL if they are published. The caller holds mu.
func (w *world) commit(rows []dbgen.Outbox) {
	w.wal.rows = append(w.wal.rows, rows...)
	for _, row := range rows {
		w.written = append(w.written, judge.Written{EventID: row.ID, Outcome: judge.Committed})
		w.note("commit %s/%d published %t", row.AggregateID, row.AggregateVersion, w.wal.member)
	}
	e := entry{rows: rows}
	if !w.wal.member {
		e.rows = nil
	}
	w.grow(e)
	if len(rows) > 0 {
		w.wal.lastRow = w.wal.end
	}
}

// walIsRead reports whether the relay has confirmed all rows. The caller holds mu.
func (w *world) walIsRead() bool {
	return w.wal.slot != nil && w.wal.slot.confirmed >= w.wal.lastRow && len(w.wal.temporary) == 0
}

// judged returns the table as the judge reads it. The caller holds mu.
func (w *world) judged() (rows []judge.Row) {
	for _, r := range w.wal.rows {
		rows = append(rows, judge.Row{
			ID: r.ID, AggregateType: r.AggregateType, AggregateID: r.AggregateID, Version: r.AggregateVersion,
			EventType: r.EventType, Data: r.EventData, CreatedAt: r.CreatedAt,
		})
	}
	return rows
}

// dropSlot is what an operator does. The session that reads the slot ends first. The caller holds mu.
func (w *world) dropSlot() {
	if s := w.wal.slot; s != nil {
		if s.reader != nil {
			s.reader.cut()
		}
		w.wal.slot = nil
		w.note("slot dropped")
	}
	w.wal.trouble = ""
}

// page returns the rows of a snapshot after a key, up to limit. The caller holds mu.
func page(snapshot []dbgen.Outbox, aggregate string, version int64, limit int) (rows []dbgen.Outbox) {
	sorted := slices.SortedFunc(slices.Values(snapshot), func(a, b dbgen.Outbox) int {
		return cmp.Or(cmp.Compare(a.AggregateID, b.AggregateID), cmp.Compare(a.AggregateVersion, b.AggregateVersion))
	})
	for _, r := range sorted {
		if cmp.Or(cmp.Compare(r.AggregateID, aggregate), cmp.Compare(r.AggregateVersion, version)) > 0 && len(rows) < limit {
			rows = append(rows, r)
		}
	}
	return rows
}

// sendWAL sends the WAL from the position on, until the connection ends or something else reads the slot.
func (w *world) sendWAL(c *conn, from pglogrepl.LSN) {
	out := serverSide{c}
	related := false
	for next := 0; ; next++ {
		w.mu.Lock()
		for next < len(w.wal.log) && w.wal.log[next].end <= from {
			next++
		}
		for next >= len(w.wal.log) && !w.over && !c.isOver() {
			w.changed.Wait()
		}
		if w.over || c.isOver() {
			w.mu.Unlock()
			return
		}
		e := w.wal.log[next]
		w.mu.Unlock()
		for i, message := range e.messages(!related) {
			time.Sleep(w.delay(10*time.Microsecond, 2*time.Millisecond, "wal", c.number, next, i))
			if _, err := out.Write(copyData("w", e.start+pglogrepl.LSN(i), e.end, micros(time.Now()), message)); err != nil {
				return
			}
		}
		related = related || len(e.rows) > 0
		w.mu.Lock()
		c.sent = e.end
		w.mu.Unlock()
	}
}

// keepalive answers a status. It names the end of the WAL if everything of ours before it was sent. The caller holds mu.
func (w *world) keepalive(c *conn) []byte {
	end := w.wal.end
	if n := len(w.wal.log); n > 0 && w.wal.log[n-1].end > c.sent {
		end = c.sent
	}
	return copyData("k", end, micros(time.Now()), "\x00")
}

// message makes a message of texts and of numbers in network order.
func message(parts ...any) (b []byte) {
	for _, part := range parts {
		if text, ok := part.(string); ok {
			part = []byte(text)
		}
		var err error
		if b, err = binary.Append(b, binary.BigEndian, part); err != nil {
			panic(err)
		}
	}
	return b
}

func copyData(parts ...any) []byte {
	data := message(parts...)
	return message("d", uint32(4+len(data)), data)
}

// micros is PostgreSQL's time. Its epoch is 2000.
func micros(t time.Time) uint64 { return uint64(t.UnixMicro() - 946684800*1e6) }

var columns = []string{"id", "aggregate_type", "aggregate_id", "aggregate_version", "event_type", "event_data", "traceparent", "created_at"}

// messages are those of pgoutput, protocol version 1.
func (e entry) messages(first bool) (all [][]byte) {
	all = append(all, message("B", e.end, micros(e.at), e.xid))
	if e.mark != "" {
		all = append(all, message("M\x01", e.start, "walrelay\x00", uint32(len(e.mark)), e.mark))
	}
	if first && len(e.rows) > 0 {
		relation := message("R", uint32(relationID), "public\x00outbox\x00d", uint16(len(columns)))
		for _, column := range columns {
			relation = append(relation, message("\x00", column, "\x00", [8]byte{})...)
		}
		all = append(all, relation)
	}
	for _, row := range e.rows {
		all = append(all, e.insert(row))
	}
	return append(all, message("C\x00", e.end, e.end, micros(e.at)))
}

func (e entry) insert(row dbgen.Outbox) []byte {
	version := strconv.FormatInt(row.AggregateVersion, 10)
	if e.broken {
		version = "a text"
	}
	b := message("I", uint32(relationID), "N", uint16(len(columns)))
	for _, value := range []string{row.ID.String(), row.AggregateType, row.AggregateID, version, row.EventType, string(row.EventData), "", textTime(row.CreatedAt)} {
		if value == "" { // traceparent
			b = append(b, 'n')
			continue
		}
		b = append(b, message("t", uint32(len(value)), value)...)
	}
	return b
}

func textTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999+00") }
