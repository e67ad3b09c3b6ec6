package walrelay

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/outbox"
)

// What the server's own pgoutput says of a row is decoded to exactly that row, and only outbox's inserts are events.
func TestDecodesWhatPgoutputWrites(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	exec := func(sql string, args ...any) {
		_, err := db.Pool.Exec(ctx, sql, args...)
		require.NoError(t, err)
	}
	exec("SELECT pg_create_logical_replication_slot(current_database()::name, 'pgoutput')")
	traceparent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	require.NoError(t, pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		for version, data := range []string{`{}`, `{"a":"<ü>\n\"\\"}`, `{"big":"` + strings.Repeat("x", 60_000) + `"}`} {
			err := outbox.Append(ctx, tx, outbox.Event{
				ID: uuid.Must(uuid.NewV7()), AggregateType: "Car", AggregateID: "id '\u2028\"", AggregateVersion: int64(version + 1),
				Type: "CarUpdated", Data: json.RawMessage(data), Traceparent: traceparent,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	exec("ALTER TABLE outbox ADD COLUMN later text DEFAULT 'x'")
	exec("CREATE TABLE other (id int PRIMARY KEY)")
	exec("ALTER PUBLICATION outbox_publication ADD TABLE other")
	exec("INSERT INTO other VALUES (1)")
	exec(`INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, created_at)
		VALUES (gen_random_uuid(), 'Z', repeat('€', 255), 9223372036854775807, 'E', '{}', '1970-01-01 00:00:00Z'),
			(gen_random_uuid(), 'Z', 'a', 1, 'E', '{}', '9999-12-31 23:59:59.999999Z')`)
	exec("DELETE FROM outbox WHERE aggregate_type = 'Z' AND aggregate_id = 'a'")

	rows, err := db.Pool.Query(ctx, `SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes(
		current_database()::name, NULL, NULL, 'proto_version', '1', 'publication_names', 'outbox_publication')`)
	require.NoError(t, err)
	d := decoder{outboxes: map[uint32][]string{}}
	var records []outbox.Record
	var begins, commits int
	var lsn string
	var message []byte
	_, err = pgx.ForEachRow(rows, []any{&lsn, &message}, func() error {
		start, err := pglogrepl.ParseLSN(lsn)
		require.NoError(t, err)
		got, err := d.decode(start, message)
		require.NoError(t, err)
		switch got.change {
		case changeBegin:
			begins++
		case changeInsert:
			records = append(records, got.record)
		case changeCommit:
			commits++
			require.Greater(t, got.end, d.final)
		case changeNone:
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, begins, commits)
	require.Len(t, records, 5)

	rows, err = db.Pool.Query(ctx, `SELECT id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data, traceparent, created_at FROM outbox
		ORDER BY aggregate_type, aggregate_version`)
	require.NoError(t, err)
	want, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbgen.Outbox])
	require.NoError(t, err)
	require.Len(t, want, 4, "one is deleted again, its event is not")
	for i := range want {
		want[i].CreatedAt = want[i].CreatedAt.UTC()
		require.Equal(t, want[i], records[i].Row)
		require.Equal(t, outbox.OperationInsert, records[i].Operation)
		require.WithinDuration(t, time.Now(), records[i].Commit.Time, 30*time.Minute)
	}
	for i, sequence := range []int{1, 2, 3, 1, 2} {
		require.Equal(t, sequence, records[i].Commit.Sequence)
		require.Regexp(t, `^[0-9A-F]{8}/[0-9A-F]{8}\.[123]\.[0-9A-F]{8}/[0-9A-F]{8}$`, records[i].Commit.StreamPosition)
	}
	require.Equal(t, records[0].Commit.TransactionID, records[2].Commit.TransactionID)
	require.NotEqual(t, records[0].Commit.TransactionID, records[3].Commit.TransactionID)
}

// Messages built by hand, as the protocol describes them.
func relationMessage(columns ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'R'}, 16385)
	m = append(m, "public\x00outbox\x00d"...)
	m = binary.BigEndian.AppendUint16(m, uint16(len(columns)))
	for _, column := range columns {
		m = append(m, 0)
		m = append(m, column...)
		m = append(m, 0)
		m = binary.BigEndian.AppendUint32(m, 25)
		m = binary.BigEndian.AppendUint32(m, 0xffffffff)
	}
	return m
}

func insertMessage(values ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'I'}, 16385)
	m = binary.BigEndian.AppendUint16(append(m, 'N'), uint16(len(values)))
	for _, value := range values {
		if value == "NULL" {
			m = append(m, 'n')
			continue
		}
		m = binary.BigEndian.AppendUint32(append(m, 't'), uint32(len(value)))
		m = append(m, value...)
	}
	return m
}

var goodRow = []string{"0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f12", "Car", "a", "1", "CarCreated", "{}", "NULL", "2026-11-23 09:15:00.5+00"}

// The server gives the id of a relation to another one, and another schema has a table of the same name.
// Rows of those relations are not events.
func TestRowsOfOtherRelationsAreNoEvents(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"public\x00cars\x00", "app\x00outbox\x00"} {
		d := decoder{outboxes: map[uint32][]string{}}
		ours := relationMessage(outboxColumns...)
		for _, relation := range []struct {
			message []byte
			want    change
		}{{ours, changeInsert}, {bytes.Replace(ours, []byte("public\x00outbox\x00"), []byte(other), 1), 0}} {
			_, err := d.decode(0, relation.message)
			require.NoError(t, err)
			result, err := d.decode(0, insertMessage(goodRow...))
			require.NoError(t, err)
			require.Equal(t, relation.want, result.change, "%q", relation.message)
		}
	}
}

func TestRefusesWhatItCannotUnderstand(t *testing.T) {
	t.Parallel()
	change := func(column int, value string) []byte {
		row := append([]string{}, goodRow...)
		row[column] = value
		return insertMessage(row...)
	}
	toasted := insertMessage(goodRow...)
	toasted[8] = 'u' // the first column's kind
	for name, tc := range map[string]struct {
		reason  string
		message []byte
	}{
		"Empty":          {"empty", nil},
		"Streamed":       {"protocol version 1", []byte{'S', 0, 0, 0, 1, 1}},
		"CutOffBegin":    {"cut off", []byte{'B', 0, 0}},
		"CutOffRelation": {"cut off", relationMessage(outboxColumns...)[:40]},
		"CutOffInsert":   {"cut off", insertMessage(goodRow...)[:30]},
		"ColumnList":     {"column traceparent", relationMessage("id", "aggregate_type", "aggregate_id", "aggregate_version", "event_type", "event_data", "created_at")},
		"ColumnCount":    {"columns", insertMessage(goodRow[:7]...)},
		"MoreColumns":    {"columns", insertMessage(append(goodRow[:8:8], "x")...)},
		"OldTuple":       {"tuple type", []byte{'I', 0, 0, 0x40, 1, 'K', 0, 0}},
		"Toasted":        {"column id", toasted},
		"BadID":          {"column id", change(0, "42")},
		"BadVersion":     {"column aggregate_version", change(3, "x")},
		"BadTime":        {"column created_at", change(7, "infinity")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := decoder{outboxes: map[uint32][]string{}}
			_, err := d.decode(0, relationMessage(outboxColumns...))
			require.NoError(t, err)
			_, err = d.decode(0, tc.message)
			require.ErrorContains(t, err, tc.reason)
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(relationMessage(outboxColumns...), insertMessage(goodRow...))
	f.Add(relationMessage("id"), insertMessage("x"))
	f.Add([]byte{'B', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7}, append([]byte{'C', 0}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := decoder{outboxes: map[uint32][]string{}}
		_, _ = d.decode(0, first)
		got, err := d.decode(1<<40, second)
		if err != nil {
			require.Zero(t, got.change)
			return
		}
		if got.change == changeInsert {
			_, _ = got.record.AppendJSON(nil)
		}
	})
}

// BenchmarkDecodeInsert measures the reader's work on one row, from the message to the stream's record.
func BenchmarkDecodeInsert(b *testing.B) {
	d := decoder{outboxes: map[uint32][]string{}}
	_, err := d.decode(0, relationMessage(outboxColumns...))
	require.NoError(b, err)
	row := append([]string{}, goodRow...)
	row[2], row[5] = "0199fa3c-7b60-7c9e-8d5f-2a4b6c8e0f13", `{"make": "Toyota", "text": "`+strings.Repeat("x", 400)+`"}`
	message := insertMessage(row...)
	defer labtest.AllocsAtMost(b, 7)()
	for b.Loop() {
		got, err := d.decode(1<<40, message)
		require.NoError(b, err)
		_, err = newPending(got.record, nil)
		require.NoError(b, err)
	}
}
