package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// confirmedBySlot is a condition on a row of outbox and slot $1. It is true if the slot has certainly
// confirmed the row's commit, so that the relay will not send the row (again). A row has no LSN to
// compare. But before the server moves catalog_xmin on, the slot has confirmed a position at which
// every transaction with an older id had ended. If the slot was moved a moment ago, the condition
// stays false for some seconds, until the server writes the next list of running transactions. The
// condition is inline, because sqlc does not know xmin.
const confirmedBySlot = `coalesce(age(outbox.xmin) > (SELECT age(catalog_xmin) FROM pg_catalog.pg_replication_slots
	WHERE slot_name = $1 AND database = current_database() AND NOT temporary), false)`

// comparedRows is how many of the newest confirmed rows the doctor looks for on the stream.
const comparedRows = 100

// confirmedRows compares the slot with the stream. A slot that was made again or moved by hand has confirmed rows that no relay has sent.
func (d doctor) confirmedRows(ctx context.Context, conn *pgx.Conn) (check, error) {
	slot, err := dbgen.New(conn).SlotHealth(ctx, d.Slot)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && slot.WalStatus == "lost" {
		return check{State: stateSkip, Finding: "no slot that confirms anything"}, nil
	}
	if err != nil {
		return check{}, err
	}
	stream, err := kinesis.NewFromConfig(d.AWS).DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &d.Stream})
	if err != nil {
		return check{State: stateSkip, Finding: "no stream to compare with"}, nil //nolint:nilerr // the check of the stream says why
	}
	summary := stream.StreamDescriptionSummary
	rows, err := d.newestConfirmed(ctx, conn, aws.ToTime(summary.StreamCreationTimestamp), aws.ToInt32(summary.RetentionPeriodHours))
	if err != nil {
		return check{}, err
	}
	if len(rows) == 0 {
		return check{State: stateOK, Finding: "none that the stream would still have"}, nil
	}
	searching, cancel := context.WithTimeout(ctx, d.patience/2)
	defer cancel()
	onStream, err := newStreamReader(d.Setup).find(searching, rows)
	if searching.Err() != nil {
		return check{State: stateSkip, Finding: "the stream has too much to read here", Do: "outboxctl audit"}, ctx.Err()
	}
	if err != nil {
		return check{State: stateSkip, Finding: err.Error()}, nil //nolint:nilerr // an operator may lack kinesis:GetRecords
	}
	return d.judgeConfirmed(ctx, conn, slot.Plugin, rows, onStream)
}

func (d doctor) judgeConfirmed(ctx context.Context, conn *pgx.Conn, plugin string, rows []auditRow, onStream found) (check, error) {
	ahead, err := onStream.aheadOf(ctx, conn)
	if err != nil {
		return check{}, err
	}
	var absent []auditRow
	for _, row := range rows {
		if !onStream.ids[row.EventID] {
			absent = append(absent, row)
		}
	}
	switch {
	case len(absent) > 0:
		oldest := absent[len(absent)-1]
		c := check{State: stateFail, Finding: fmt.Sprintf("%s has confirmed past %d of the newest %d, and %s does not have them: the first is %s of %s",
			d.Slot, len(absent), len(rows), d.Stream, oldest.EventID, oldest.CreatedAt.Format(time.RFC3339)),
			Do: "only a replay brings them: see slot-moved in docs/operations.md"}
		if plugin != "pgoutput" {
			c.State, c.Finding = stateWarn, c.Finding+", unless the DMS task still holds them"
		}
		return c, nil
	case ahead != "":
		return check{State: stateFail, Finding: ahead, Do: "see slot-moved in docs/operations.md"}, nil
	}
	return check{State: stateOK, Finding: fmt.Sprintf("the newest %d are on %s", len(rows), d.Stream)}, nil
}

// newestConfirmed returns the newest rows that the slot has confirmed and that the stream must
// have, the newest first. Rows that are older than the stream went to another stream. A DMS task
// may have confirmed a row younger than d.settled before Kinesis took it.
func (d doctor) newestConfirmed(ctx context.Context, conn *pgx.Conn, made time.Time, keptHours int32) ([]auditRow, error) {
	rows, err := conn.Query(ctx, `SELECT id, aggregate_type, aggregate_id, aggregate_version, created_at, true FROM outbox
		WHERE created_at > greatest($2, now() - make_interval(hours => $3 - 1)) AND created_at < now() - $4::interval AND `+confirmedBySlot+`
		ORDER BY created_at DESC LIMIT $5`, d.Slot, made.Add(d.settled), keptHours, d.settled, comparedRows)
	if err != nil {
		return nil, fmt.Errorf("reading outbox: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[auditRow])
}

// searchStream looks on the stream for the listed missing events that the slot has confirmed. The
// relay will not send them, so only a replay brings an event that is not on the stream either. A
// search that takes more than a minute leaves OnStream null.
func (r *auditReport) searchStream(ctx context.Context, stream streamReader) error {
	var rows []auditRow
	for _, e := range r.Missing.Events {
		if e.SlotPassed {
			rows = append(rows, auditRow{eventKey: eventKey{EventID: uuid.MustParse(e.EventID)}, CreatedAt: e.CreatedAt})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	searching, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	onStream, err := stream.find(searching, rows)
	if searching.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	for i, e := range r.Missing.Events {
		if e.SlotPassed {
			there := onStream.ids[uuid.MustParse(e.EventID)]
			r.Missing.Events[i].OnStream = &there
		}
	}
	return nil
}

// found is the result of a search of the stream.
type found struct {
	ids map[uuid.UUID]bool
	tip string // the latest commit's LSN, as PostgreSQL writes it. It is empty when no record has one.
}

// find looks for the events of rows on the whole stream, from the creation of the oldest on.
func (r streamReader) find(ctx context.Context, rows []auditRow) (found, error) {
	f := found{ids: map[uuid.UUID]bool{}}
	from := rows[0].CreatedAt
	wanted := map[uuid.UUID]bool{}
	for _, row := range rows {
		wanted[row.EventID] = true
		if row.CreatedAt.Before(from) {
			from = row.CreatedAt
		}
	}
	shards, err := r.shards(ctx)
	if err != nil {
		return f, err
	}
	for _, shard := range shards {
		err := r.read(ctx, aws.ToString(shard.ShardId), position{at: from.Add(-clockSkew)}, func(raw types.Record) error {
			record, skip, err := outbox.ParseRecord(raw.Data)
			if err != nil || skip != outbox.SkipNothing {
				return nil //nolint:nilerr // what cannot be read is the consumer's to park
			}
			if wanted[record.Row.ID] {
				f.ids[record.Row.ID] = true
			}
			f.tip = max(f.tip, commitLSN(record.Commit.StreamPosition))
			return nil
		})
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// commitLSN returns the commit's LSN in a stream-position, or "" for any other text. DMS and
// walrelay write <change>.<place>.<commit> with all digits, so two LSNs compare as text.
func commitLSN(streamPosition string) string {
	parts := strings.Split(streamPosition, ".")
	const written = "00000002/7C007178"
	if len(parts) != 3 || len(parts[2]) != len(written) || parts[2][8] != '/' {
		return ""
	}
	return strings.ToUpper(parts[2])
}

// aheadOf says that the stream has a commit that the database does not have. It returns "" if that
// is not so.
func (f found) aheadOf(ctx context.Context, conn *pgx.Conn) (string, error) {
	if f.tip == "" {
		return "", nil
	}
	var ahead bool
	var end string
	if err := conn.QueryRow(ctx, "SELECT $1::text::pg_lsn > pg_current_wal_insert_lsn(), pg_current_wal_insert_lsn()::text", f.tip).Scan(&ahead, &end); err != nil {
		return "", fmt.Errorf("comparing the stream's newest commit with the WAL: %w", err)
	}
	if !ahead {
		return "", nil
	}
	return fmt.Sprintf("the stream has a commit at %s, and this server's WAL ends at %s: the database is another one, or was put back to an earlier state",
		f.tip, end), nil
}
