package outboxctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgserver"
	"rds-outbox-demo/outbox"
)

// largeBacklog is more than a healthy relay is behind for a moment. It is the bytes that a relay has in flight at once.
const largeBacklog = 16 << 20

// database makes the checks of ② and ③. Without a connection only the first says something.
func (d doctor) database(ctx context.Context) (checks []check) {
	rest := []struct {
		name string
		make func(context.Context, *pgx.Conn) (check, error)
	}{
		{"encoding", encoding}, {"wal_level", walLevel}, {"publication", d.publication}, {"slot", d.checkSlot}, {"slot timeout", slotTimeout}, {"promotion", d.promotion},
		{"other slots", d.otherSlots}, {"retained WAL", d.retainedWAL}, {"backlog", d.backlog}, {"confirmed rows", d.confirmedRows}, {"partitions", partitions}, {"transactions", d.transactions}, {"database clock", d.databaseClock},
	}
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for i, r := range rest {
		if conn == nil || conn.IsClosed() { // a check that ran out of time takes its connection along
			var err error
			if conn, err = d.connect(ctx); err != nil {
				checks = append(checks, check{"database", stateFail, err.Error(), "start it, or mend DATABASE_URL or the DB_* variables"})
				for _, left := range rest[i:] {
					checks = append(checks, check{left.name, stateSkip, "no database", ""})
				}
				return checks
			}
			if i == 0 {
				checks = append(checks, server(ctx, conn))
			}
		}
		checking, cancel := context.WithTimeout(ctx, d.patience)
		made := check{State: stateSkip, Finding: "the server is a standby: its primary answers this"}
		standby, err := isStandby(checking, conn)
		if err == nil && (!standby || r.name == "promotion") {
			made, err = r.make(checking, conn)
		}
		cancel()
		if err != nil {
			made = broken(r.name, err)
		}
		made.Name = r.name
		checks = append(checks, made)
	}
	return checks
}

// server names the server, and refuses one that is too old.
func server(ctx context.Context, conn *pgx.Conn) check {
	c := conn.Config()
	name := fmt.Sprintf("%s on %s, PostgreSQL %s, as %s", c.Database, c.Host, conn.PgConn().ParameterStatus("server_version"), c.User)
	version, err := dbgen.New(conn).SettingGet(ctx, "server_version_num")
	if err != nil {
		return broken("database", fmt.Errorf("reading server_version_num: %w", err))
	}
	if err := pgserver.CheckVersion(version); err != nil {
		return check{"database", stateFail, name + ": " + err.Error(), pgserver.VersionRemedy}
	}
	return check{"database", stateOK, name, ""}
}

func encoding(_ context.Context, conn *pgx.Conn) (check, error) {
	if err := pgserver.CheckEncoding(conn.PgConn()); err != nil {
		return check{State: stateFail, Finding: err.Error(), Do: pgserver.EncodingRemedy}, nil //nolint:nilerr // it is the finding
	}
	return check{State: stateOK, Finding: "UTF8"}, nil
}

func walLevel(ctx context.Context, conn *pgx.Conn) (check, error) {
	level, err := dbgen.New(conn).SettingGet(ctx, "wal_level")
	if err != nil || level == "logical" {
		return check{State: stateOK, Finding: level}, err
	}
	return check{State: stateFail, Finding: level + ": no slot can read events from the WAL",
		Do: "set wal_level = logical (on RDS: rds.logical_replication = 1) and restart the server"}, nil
}

// publication checks what the slot's reader sees of table outbox. It uses the words of walrelay and
// retention.
func (d doctor) publication(ctx context.Context, conn *pgx.Conn) (check, error) {
	slot, err := dbgen.New(conn).SlotHealth(ctx, d.Slot)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return check{}, err
	}
	look, fine := outbox.LookAtPublication, outbox.Publication+" publishes every insert into public.outbox"
	if slot.Plugin == "test_decoding" {
		look, fine = outbox.LookAtTable, "DMS does not use it. Table public.outbox is as DMS needs it. The settings of the DMS task are not checked"
	}
	found, err := look(ctx, conn)
	switch {
	case err != nil:
		return check{}, err
	case found.Problem != "":
		return check{State: stateFail, Finding: found.Problem, Do: found.Remedy}, nil
	case found.Changing:
		return check{State: stateWarn, Finding: "an open transaction changes table outbox or its publication",
			Do: "end it: until then walrelay confirms nothing (SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start)"}, nil
	}
	// Their tables, functions and operators would be found under names that our statements use.
	creators, err := dbgen.New(conn).SchemaCreators(ctx)
	if err != nil || len(creators) == 0 {
		return check{State: stateOK, Finding: fine}, err
	}
	return check{State: stateWarn, Finding: "may create functions and tables in schema public, which can change what a statement means: " + strings.Join(creators, ", "),
		Do: "REVOKE CREATE ON SCHEMA public FROM each of them, as the schema's owner"}, nil
}

func (d doctor) checkSlot(ctx context.Context, conn *pgx.Conn) (check, error) {
	slot, err := dbgen.New(conn).SlotHealth(ctx, d.Slot)
	const drop = "SELECT pg_drop_replication_slot('%s') and start walrelay, which loads every retained row; with DMS reload-target (docs/operations.md)"
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return check{State: stateFail, Finding: d.Slot + " does not exist: nothing of what is committed is on its way",
			Do: "set SLOT_NAME to the slot of the path (SELECT slot_name, plugin FROM pg_replication_slots); if there is none, start the path's relay"}, nil
	case err != nil:
		return check{}, err
	case slot.Plugin != "pgoutput" && slot.Plugin != "test_decoding" || slot.Database != conn.Config().Database:
		return check{State: stateFail, Finding: fmt.Sprintf("%s is for plugin %q and database %q", d.Slot, slot.Plugin, slot.Database),
			Do: "name the path's own slot in SLOT_NAME: plugin pgoutput (walrelay) or test_decoding (DMS), database " + conn.Config().Database}, nil
	case slot.WalStatus == "lost":
		why := map[string]string{
			"": "WAL that it needs is gone", "wal_removed": "WAL that it needs is gone", "idle_timeout": "nobody read it for idle_replication_slot_timeout",
		}[slot.InvalidationReason]
		return check{State: stateFail, Finding: d.Slot + " is lost: " + cmp.Or(why, slot.InvalidationReason), Do: fmt.Sprintf(drop, d.Slot)}, nil
	case slot.WalStatus == "unreserved":
		return check{State: stateFail, Finding: d.Slot + " is about to be lost: its WAL may go with the next checkpoint",
			Do: "let the relay catch up now, or raise max_slot_wal_keep_size"}, nil
	case !slot.Active:
		since := ""
		if slot.InactiveSince != "" {
			since = " since " + slot.InactiveSince
		}
		return check{State: stateFail, Finding: d.Slot + " is read by nobody" + since + ": events wait in the WAL",
			Do: "start the relay (make relay-start, make dms)"}, nil
	}
	return check{State: stateOK, Finding: fmt.Sprintf("%s is active, %s, WAL %s", d.Slot, slot.Plugin, slot.WalStatus)}, nil
}

// slotTimeout checks idle_replication_slot_timeout. With it PostgreSQL 18 invalidates a slot by
// time, however little WAL the slot holds back.
func slotTimeout(ctx context.Context, conn *pgx.Conn) (check, error) {
	setting, err := dbgen.New(conn).SettingGet(ctx, "idle_replication_slot_timeout")
	if errors.Is(err, pgx.ErrNoRows) {
		return check{State: stateOK, Finding: "PostgreSQL 17 and older have none"}, nil
	}
	if err != nil {
		return check{}, err
	}
	return judgeSlotTimeout(setting), nil
}

// judgeSlotTimeout judges the value of idle_replication_slot_timeout, in seconds. 0 means off.
func judgeSlotTimeout(setting string) check {
	if setting == "0" {
		return check{State: stateOK, Finding: "idle_replication_slot_timeout is off"}
	}
	return check{State: stateWarn, Finding: "idle_replication_slot_timeout is " + setting + " s: a relay that is away for longer loses its slot",
		Do: "set it to 0, so that only max_slot_wal_keep_size limits a slot; or to more than the longest outage of a relay"}
}

// twoLooks returns the slot before and after d.between. found is false when there is none to look at.
func (d doctor) twoLooks(ctx context.Context, conn *pgx.Conn) (first, second dbgen.SlotHealthRow, found bool, err error) {
	queries := dbgen.New(conn)
	if first, err = queries.SlotHealth(ctx, d.Slot); err == nil {
		if !pauseFor(ctx, d.between) {
			return first, second, false, ctx.Err()
		}
		second, err = queries.SlotHealth(ctx, d.Slot)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return first, second, false, nil
	}
	return first, second, err == nil && second.WalStatus != "lost", err
}

func (d doctor) retainedWAL(ctx context.Context, conn *pgx.Conn) (check, error) {
	setting, err := dbgen.New(conn).SettingGet(ctx, "max_slot_wal_keep_size") // MB
	if err != nil {
		return check{}, err
	}
	limit, err := strconv.ParseInt(setting, 10, 64)
	if err != nil {
		return check{}, fmt.Errorf("max_slot_wal_keep_size is %q: %w", setting, err)
	}
	first, second, found, err := d.twoLooks(ctx, conn)
	if err != nil || !found {
		return check{State: stateSkip, Finding: "no slot that holds any"}, err
	}
	return judgeRetained(limit, first, second), nil
}

// judgeRetained judges two looks at a slot. limit is max_slot_wal_keep_size in MB.
func judgeRetained(limit int64, first, second dbgen.SlotHealthRow) check {
	// The retained WAL goes up and down in steps while all is well, because the slot releases WAL only now and then. The
	// unconfirmed WAL grows if the slot does not move, or is too slow.
	growth := float64(second.Unconfirmed-first.Unconfirmed) / second.LookedAt.Sub(first.LookedAt).Seconds() // bytes a second
	stands := !second.Active || second.Unconfirmed > largeBacklog
	c := check{State: stateOK, Finding: size(second.Retained)}
	if limit < 0 {
		c.State, c.Do = stateWarn, "set max_slot_wal_keep_size to less than half of the disk: a lost slot costs duplicates, a full disk the service"
		c.Finding += ", without a limit: a slot that stands fills the disk"
		return c
	}
	c.Finding += fmt.Sprintf(" of %s", size(limit<<20))
	left := time.Duration(1<<63 - 1)
	if growth > 0 && stands && second.SafeWalSize >= 0 {
		left = time.Duration(min(float64(second.SafeWalSize)/growth, 1e9) * float64(time.Second))
		c.Finding += fmt.Sprintf(", %s a second more: %s left", size(int64(growth)), left.Round(time.Second))
	} else {
		c.Finding += ", the slot keeps up"
	}
	c.Do = "let the relay catch up, or raise max_slot_wal_keep_size, before the slot is lost"
	used := float64(second.Retained) / float64(limit<<20)
	switch {
	case used > 0.9 || left < 10*time.Minute:
		c.State = stateFail
	case used > 0.5 || left < time.Hour:
		c.State = stateWarn
	}
	return c
}

// backlog is the WAL that the slot has not confirmed. Events that are committed there may not be on the stream.
func (d doctor) backlog(ctx context.Context, conn *pgx.Conn) (check, error) {
	first, second, found, err := d.twoLooks(ctx, conn)
	if err != nil || !found {
		return check{State: stateSkip, Finding: "no slot that confirms anything"}, err
	}
	c := check{State: stateOK, Finding: size(second.Unconfirmed) + " of WAL not confirmed",
		Do: "look at the relay's log: it may be slow, throttled (stream-throttled in docs/operations.md), or busy with one large transaction"}
	switch shrinks := second.Unconfirmed < first.Unconfirmed; {
	case second.Unconfirmed > 4*largeBacklog && !shrinks:
		c.State, c.Finding = stateFail, c.Finding+", and not getting less"
	case second.Unconfirmed > largeBacklog:
		c.State = stateWarn
	}
	return c, nil
}

func (d doctor) transactions(ctx context.Context, conn *pgx.Conn) (check, error) {
	queries := dbgen.New(conn)
	visible, err := queries.TransactionsVisible(ctx)
	if err != nil {
		return check{}, err
	}
	if !visible {
		return check{State: stateWarn, Finding: conn.Config().User + " does not see those of others", Do: "GRANT pg_read_all_stats to it"}, nil
	}
	oldest, err := queries.TransactionOldest(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return check{State: stateOK, Finding: "none that has written is open"}, nil
	} else if err != nil {
		return check{}, err
	}
	age := time.Duration(oldest.Seconds) * time.Second
	c := check{State: stateOK, Finding: fmt.Sprintf("the oldest that has written is open for %s", age),
		Do: fmt.Sprintf("end it: pid %d (%s); pid 0 is a prepared one (ROLLBACK PREPARED). From its start on the WAL is kept", oldest.Pid, printable(oldest.ApplicationName))}
	switch {
	case age >= 12*d.oldTransaction:
		c.State = stateFail
	case age >= d.oldTransaction:
		c.State = stateWarn
	}
	return c, nil
}

func (d doctor) databaseClock(ctx context.Context, conn *pgx.Conn) (check, error) {
	before := d.now()
	theirs, err := dbgen.New(conn).ServerClock(ctx)
	if err != nil {
		return check{}, err
	}
	half := d.now().Sub(before) / 2
	return clock("", theirs, before.Add(half), half), nil
}
