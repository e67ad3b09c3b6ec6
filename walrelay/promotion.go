package walrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

// errOldPrimary means that the server's history ends before a promotion that the relay has seen.
var errOldPrimary = errors.New("the server is an old primary")

// checkPrimary refuses a server on an older timeline than the latest one that this process has worked with. A promotion begins a new
// timeline. So such a server is a primary that came back after its standby was promoted, and what commits there is lost.
//
// The relay waits and connects again, because an address may lead to the old server for a while. If it ended, its successor would know
// of no timeline. A relay that is started beside an old primary knows of none either, and reads from it. Then only
// synchronized_standby_slots holds it up: the standby no longer reads from the old primary, so nothing new is sent.
func (r *Relay) checkPrimary(ctx context.Context, conn *pgconn.PgConn) error {
	now, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return fmt.Errorf("asking for the server's timeline: %w", err)
	}
	if r.primary != nil && now.SystemID == r.primary.SystemID && now.Timeline < r.primary.Timeline {
		return fmt.Errorf("%w: it is on timeline %d, and the relay has worked on timeline %d (if it is the right server, start the relay again)",
			errOldPrimary, now.Timeline, r.primary.Timeline)
	}
	r.primary = &now
	return nil
}

// errOtherServer means that an address has led two connections of a session to two servers.
var errOtherServer = errors.New("the session's two connections lead to two servers")

// checkOneServer returns errOtherServer unless control's server has the slot in use by session. An address that leads elsewhere after a
// promotion can do so between the two connections. The publication would then be looked at on one server, and the WAL be read and
// confirmed on the other. A standby shares the system identifier with its primary, so that does not tell them apart. Only the server of
// the session knows both its process and that it has taken the slot a moment ago.
func checkOneServer(ctx context.Context, control *pgx.Conn, session *pgconn.PgConn, slot string) error {
	user, err := dbgen.New(control).SlotUser(ctx, slot)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("asking who uses slot %s: %w", slot, err)
	}
	if err != nil || int64(user) != int64(session.PID()) {
		return fmt.Errorf("%w: slot %s is in use by process %d on the one and %d on the other", errOtherServer, slot, session.PID(), user)
	}
	return nil
}

// makeFailoverSlot makes the slot a failover slot, which a standby can keep a copy of (PostgreSQL 17 and later). A server without such
// slots loses the slot in a promotion, and the relay then loads.
//
// It is done here and not where the slot is made, because neither a temporary slot nor the copy of one can be a failover slot. So a slot
// of an older relay or of outboxctl copy-slot becomes one as well. Every slot that streams needs it only once.
func (r *Relay) makeFailoverSlot(ctx context.Context, control *pgx.Conn, replication *pgconn.PgConn) error {
	slot, err := dbgen.New(control).SlotGet(ctx, r.slot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // START_REPLICATION says so
	}
	if err != nil {
		return fmt.Errorf("reading slot %s: %w", r.slot, err)
	}
	if slot.Failover != "false" || sabotage.On(sabotage.FailoverOff) {
		return nil
	}
	if slot.Active {
		return errSlotActive // the statement would wait for its end
	}
	_, err = replication.Exec(ctx, fmt.Sprintf("ALTER_REPLICATION_SLOT %s (FAILOVER)", pgx.Identifier{r.slot}.Sanitize())).ReadAll()
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && !replication.IsClosed():
		// The slot is as good as any before PostgreSQL 17. Events must not wait for this.
		r.log.Warn("the slot was not made a failover slot", "hop", 3, "slot", r.slot, "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("making slot %s a failover slot: %w", r.slot, err)
	}
	r.log.Info("the slot was made a failover slot", "hop", 3, "slot", r.slot)
	return nil
}

// lookAtPromotion logs what a promotion would do to the slot, when that has changed since the latest look.
func (r *Relay) lookAtPromotion(ctx context.Context, conn *pgx.Conn) error {
	problems, err := outbox.LookAtPromotion(ctx, conn, r.slot)
	if err != nil {
		return err
	}
	var all []string
	for _, p := range problems {
		all = append(all, p.Finding+" ("+p.Remedy+")")
	}
	now := strings.Join(all, "; ")
	if now == r.promoted {
		return nil
	}
	if r.promoted = now; now == "" {
		r.log.Info("promotion: the slot survives it as far as this server knows", "hop", 3, "slot", r.slot)
		return nil
	}
	for _, text := range all {
		r.log.Warn("promotion: "+text, "hop", 3, "slot", r.slot)
	}
	return nil
}

// standbyLook is how often the load looks whether the standbys have the snapshot.
const standbyLook = 100 * time.Millisecond

// awaitStandbys returns when every standby that synchronized_standby_slots names has all that the snapshot sees. PostgreSQL holds the
// slot's stream until then. The load reads the table itself, so it would send events that a promotion takes back.
func (l *loader) awaitStandbys(ctx context.Context) error {
	defer l.relay.waiting(ctx, "the standbys that synchronized_standby_slots names", func(ctx context.Context) []slog.Attr {
		behind, err := l.standbysBehind(ctx, l.control)
		if err != nil {
			return []slog.Attr{slog.String("behind", err.Error())}
		}
		return []slog.Attr{slog.Any("behind", behind)}
	})()
	for {
		if behind, err := l.standbysBehind(ctx, l.session); err != nil || len(behind) == 0 {
			return err
		}
		if wait(ctx, standbyLook); ctx.Err() != nil {
			return ctx.Err()
		}
		if !time.Now().Before(l.nextLook) {
			if err := l.look(ctx); err != nil {
				return err
			}
		}
	}
}

// standbysBehind returns the names of the standbys' slots that have not flushed what the snapshot sees. A slot that is missing counts.
func (l *loader) standbysBehind(ctx context.Context, conn *pgx.Conn) (behind []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.lease)
	defer cancel()
	standbys, err := dbgen.New(conn).StandbySlots(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at the slots of standbys: %w", err)
	}
	for _, s := range standbys {
		at, err := pglogrepl.ParseLSN(s.Position)
		if s.Named && (err != nil || at < l.begins) {
			behind = append(behind, s.Name)
		}
	}
	return behind, nil
}
