package local

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/lab/postgres"
)

// standbySlot is the physical slot through which each standby streams.
const standbySlot = "standby"

// Promotion is what became of the local server's primary and of the relay's slot.
type Promotion struct {
	Old      *postgres.Server // the old primary, which may have ended
	OldData  postgres.Config  // starts it again, on its port and data
	SlotKept bool             // the new primary had the relay's slot before the relay could reach it
}

// AddStandby gives the local server a standby, and returns when commits and the relay's slot wait for it. It needs Config.Standby. After
// that nothing that a client was told and nothing on the stream is lost when the standby takes the primary's place (Promote).
func (p *Path) AddStandby(ctx context.Context) error {
	d := p.database
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.endpoint == nil || d.server == nil || d.standby != nil {
		return errors.New("adding a standby: the local server does not run, has one, or was not made for one")
	}
	d.standbys++
	config := d.config
	config.Dir, config.Port = filepath.Join(p.config.Dir, fmt.Sprint("postgres-standby-", d.standbys)), 0
	standby, err := postgres.StartStandby(ctx, config, d.server, standbySlot)
	if err != nil {
		return err
	}
	d.standby, d.standbyConfig = standby, config
	conn, err := pgx.Connect(ctx, d.server.URL())
	if err != nil {
		return fmt.Errorf("adding a standby: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// A commit that waits for "*" waits for the relay, which is a walsender's client as well, and confirms once a second.
	// After the copy of the data. A promoted standby must not wait for one that does not exist yet.
	for _, statement := range []string{
		"ALTER SYSTEM SET synchronized_standby_slots = '" + standbySlot + "'", "ALTER SYSTEM SET synchronous_standby_names = '" + standbySlot + "'", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("adding a standby: %s: %w", statement, err)
		}
	}
	for synchronous := false; !synchronous; {
		if err := conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names') <> '' AND current_setting('synchronized_standby_slots') <> '' "+
			"AND EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming')").Scan(&synchronous); err != nil {
			return fmt.Errorf("waiting for the standby: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// This commit waits for the standby, and everything before it is there as well then.
	if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'standby', '')"); err != nil {
		return fmt.Errorf("waiting for the standby: %w", err)
	}
	return nil
}

// StandbyReady returns an error until a promotion keeps the relay's slot, as far as the slot is one that a standby can have.
func (p *Path) StandbyReady(ctx context.Context) error {
	d := p.database
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil || d.standby == nil {
		return errors.New("there is no standby")
	}
	// The server's own message about open transactions, which lets the slot move, comes every 15 s.
	var failover, synced bool
	ask := func(url, sql string, to *bool) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		return conn.QueryRow(ctx, sql, p.slot).Scan(to)
	}
	if err := ask(d.server.URL(), "SELECT failover FROM pg_replication_slots, pg_log_standby_snapshot() WHERE slot_name = $1", &failover); err != nil || !failover {
		return err
	}
	err := ask(d.standby.URL(), "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)", &synced)
	if err == nil && !synced {
		err = errors.New("the standby does not have the slot")
	}
	return err
}

// Promote makes the standby the primary. end ends the old primary before that. It is nil for one that lives on, cut off from its clients to
// come. Discard is due for the old one.
func (p *Path) Promote(ctx context.Context, end func(*postgres.Server) error) (Promotion, error) {
	d := p.database
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil || d.standby == nil {
		return Promotion{}, errors.New("promoting: there is no standby")
	}
	done := Promotion{Old: d.server, OldData: d.config}
	d.expect()
	if end != nil {
		if err := end(d.server); err != nil {
			return done, err
		}
		<-d.server.Done()
	}
	if err := d.standby.Promote(ctx); err != nil {
		return done, err
	}
	conn, err := pgx.Connect(ctx, d.standby.URL())
	if err != nil {
		return done, fmt.Errorf("looking at the new primary: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", p.slot).Scan(&done.SlotKept); err != nil {
		return done, fmt.Errorf("looking at the new primary: %w", err)
	}
	d.server, d.config, d.standby = d.standby, d.standbyConfig, nil
	d.config.Port = int(conn.Config().Port)
	d.expected = make(chan struct{})
	go d.watch(d.server, d.expected)
	d.endpoint.LeadTo(d.server)
	return done, nil
}

// Discard ends an old primary and removes its data.
func (p *Path) Discard(ctx context.Context, old Promotion) error {
	if err := old.Old.Kill(); err != nil {
		return err
	}
	return postgres.Remove(ctx, old.OldData.Dir)
}

// RelayOf makes a relay that reads from a server wherever the endpoint leads. It does not run yet.
func (p *Path) RelayOf(server *postgres.Server) (*Relay, error) {
	direct, err := url.Parse(server.URL())
	if err != nil {
		return nil, fmt.Errorf("reading the server's URL: %w", err)
	}
	relay, err := url.Parse(p.relayURL)
	if err != nil {
		return nil, fmt.Errorf("reading the relay's URL: %w", err)
	}
	relay.Host = direct.Host
	return p.newRelay(relay.String(), "walrelay-old-primary.log"), nil
}
