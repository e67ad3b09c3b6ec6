package walrelay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgserver"
	"rds-outbox-demo/outbox"
)

// SetupError is a set-up that the relay cannot mend. It says what is wrong, and what to do about it.
type SetupError struct {
	Problem string
	Remedy  string
}

func (e *SetupError) Error() string { return e.Problem + ": " + e.Remedy }

// errSlotActive means that another relay streams from the slot.
var errSlotActive = errors.New("the slot is active")

// preflight checks server, publication, slot and stream, and reports whether the slot exists.
func (r *Relay) preflight(ctx context.Context, conn *pgx.Conn) (slotExists bool, err error) {
	if err := pgserver.CheckEncoding(conn.PgConn()); err != nil {
		return false, &SetupError{err.Error(), pgserver.EncodingRemedy}
	}
	queries := dbgen.New(conn)
	if err := checkServer(ctx, queries); err != nil {
		return false, err
	}
	walLevel, err := queries.SettingGet(ctx, "wal_level")
	if err != nil {
		return false, fmt.Errorf("reading wal_level: %w", err)
	}
	if walLevel != "logical" {
		return false, &SetupError{
			fmt.Sprintf("wal_level is %s", walLevel),
			"set wal_level = logical (on RDS: rds.logical_replication = 1) and restart the server",
		}
	}
	// The look comes before the slot. A look after a check that found no slot could find a change
	// that another relay's new slot has not seen, and would take it for the state that the slot
	// began with.
	look, err := outbox.LookAtPublication(ctx, conn)
	if err != nil {
		return false, err
	}
	slotExists, err = r.checkSlot(ctx, queries)
	if err != nil {
		return false, err
	}
	if err := r.checkLook(ctx, conn, look, slotExists); err != nil {
		return false, err
	}
	return slotExists, r.checkStream(ctx)
}

// checkServer refuses a server whose later errors would not say what is wrong with it.
func checkServer(ctx context.Context, queries *dbgen.Queries) error {
	version, err := queries.SettingGet(ctx, "server_version_num")
	if err != nil {
		return fmt.Errorf("reading server_version_num: %w", err)
	}
	if err := pgserver.CheckVersion(version); err != nil {
		return &SetupError{err.Error(), pgserver.VersionRemedy}
	}
	standby, err := queries.SettingGet(ctx, "in_hot_standby")
	if err != nil {
		return fmt.Errorf("reading in_hot_standby: %w", err)
	}
	// A slot on a standby of PostgreSQL 16 or later would even stream. But it cannot be measured, the load cannot copy it, and retention asks
	// the primary for it.
	if standby == "on" {
		return &SetupError{"the server is a standby", "connect to its primary"}
	}
	return nil
}

// describeTimeout bounds the look at the stream, so that the rest of the set-up has its time.
const describeTimeout = 5 * time.Second

// checkStream refuses a stream that is not there, before a load makes a slot and reads rows for it. Any other error is only logged, and
// once until a look succeeds. The look goes to another part of Kinesis than PutRecords, has another permission and a lower
// rate limit, and the relay takes no value from it. So PutRecords may work all the same. If it does not, it says why by itself, and waits
// or stops as checkStream would. That holds for the first session of a process as for later ones, because a relay may be started again
// during such a disturbance, too.
func (r *Relay) checkStream(ctx context.Context) error {
	defer r.waiting(ctx, "Kinesis to describe the stream", nil)()
	askCtx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	_, err := r.kinesis.DescribeStreamSummary(askCtx, &kinesis.DescribeStreamSummaryInput{StreamName: &r.stream})
	switch {
	case isPermanent(err):
		return &SetupError{
			fmt.Sprintf("stream %s cannot be used (%v)", r.stream, err),
			"check the stream's name and the region",
		}
	case ctx.Err() != nil:
		return fmt.Errorf("describing stream %s: %w", r.stream, ctx.Err())
	case err != nil && !r.undescribed:
		r.log.Warn("the stream was not described, going on without", "hop", 4, "slot", r.slot, "stream", r.stream, "error", err)
	}
	r.undescribed = err != nil
	return nil
}

func (r *Relay) checkSlot(ctx context.Context, queries *dbgen.Queries) (exists bool, err error) {
	slot, err := queries.SlotGet(ctx, r.slot)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading slot %s: %w", r.slot, err)
	}
	switch {
	case slot.Plugin != "pgoutput" || slot.Database != r.database.Database():
		return false, &SetupError{
			fmt.Sprintf("slot %s is for plugin %q and database %q, not for pgoutput and %q", r.slot, slot.Plugin, slot.Database, r.database.Database()),
			"give the relay another slot name",
		}
	case slot.WalStatus == "lost":
		return false, &SetupError{
			fmt.Sprintf("slot %s is lost: the server has removed WAL that it needs", r.slot),
			dropSlot(r.slot),
		}
	case slot.Active:
		return false, errSlotActive
	}
	return true, nil
}

// walSenderTimeout returns the server's patience with a silent client; 0 means without end.
func walSenderTimeout(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	setting, err := dbgen.New(conn).SettingGet(ctx, "wal_sender_timeout")
	if err != nil {
		return 0, fmt.Errorf("reading wal_sender_timeout: %w", err)
	}
	millis, err := strconv.Atoi(setting)
	if err != nil {
		return 0, fmt.Errorf("reading wal_sender_timeout %q: %w", setting, err)
	}
	return time.Duration(millis) * time.Millisecond, nil
}

// publicationGone explains an error that looks impossible, because preflight has seen the publication. But
// the server looks it up as of the position that it decodes, and there it did not exist. A publication that
// was made anew exists only from then on. PostgreSQL 17 and older end the stream with an error. 18 warns,
// skips the changes and goes on, so the next position that the relay confirms would be past lost events.
func publicationGone(slot, message string) error {
	return &SetupError{
		fmt.Sprintf("slot %s stands where publication %s did not exist (%s)", slot, outbox.Publication, message),
		"make sure that the publication is there (make migrate) and " + dropSlot(slot),
	}
}
