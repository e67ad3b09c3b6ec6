package chaos

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/lab/judge"
)

// relayRole is the relay's login. It is not a superuser, because row-level security and settings of
// roles do not concern one.
const relayRole = "chaos_relay"

// setUp makes what only chaos has in the database.
//
// The record keeps each row of outbox from its insert, in the same transaction. Retention deletes rows of outbox, so the table cannot say
// what was committed. A trigger stays with its table whatever its name and schema are.
var setUp = []string{
	"CREATE SCHEMA chaos",
	"CREATE TABLE chaos.record (kept jsonb NOT NULL)", // whatever columns outbox has at the moment
	`CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO chaos.record VALUES (to_jsonb(NEW));
		RETURN NULL;
	END $$`,
	"CREATE TRIGGER note AFTER INSERT ON public.outbox FOR EACH ROW EXECUTE FUNCTION chaos.note()",
	`CREATE TABLE chaos.counted (place bigserial, aggregate text NOT NULL, version bigint NOT NULL)`,
	`CREATE FUNCTION chaos.count() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO chaos.counted (aggregate, version) VALUES (NEW.aggregate_type || ' ' || NEW.aggregate_id, NEW.aggregate_version);
		RETURN NULL;
	END $$`,
	"CREATE TRIGGER count AFTER INSERT ON public.inbox FOR EACH ROW EXECUTE FUNCTION chaos.count()",
	"CREATE ROLE " + relayRole + " LOGIN REPLICATION PASSWORD 'chaos' IN ROLE outbox_relay",
}

// misplaced counts the events that the subscriber counted in another place than their version says.
const misplaced = `SELECT count(*) FILTER (WHERE version <> turn) AS events, coalesce(min(aggregate) FILTER (WHERE version <> turn), '') AS aggregate
	FROM (SELECT *, row_number() OVER (PARTITION BY aggregate ORDER BY place) AS turn FROM chaos.counted) AS counted`

// judgeOrder adds a violation if a subscriber in order counted any event out of order.
func (r *round) judgeOrder(ctx context.Context, verdict *judge.Verdict) error {
	if !r.config.inOrder() {
		return nil
	}
	all, err := query[struct {
		Events    int64
		Aggregate string
	}](ctx, r, misplaced)
	if err == nil && all[0].Events > 0 {
		verdict.Wrong++
		verdict.Violations = append(verdict.Violations, judge.Violation{
			Rule: judge.RuleCarStats, Text: fmt.Sprintf("carstats counted %d events out of order, some of %s", all[0].Events, all[0].Aggregate),
		})
	}
	return err
}

// recorded reads the record.
const recorded = `SELECT (kept ->> 'id')::uuid AS id, kept ->> 'aggregate_type' AS aggregate_type, kept ->> 'aggregate_id' AS aggregate_id,
	(kept ->> 'aggregate_version')::bigint AS version, kept ->> 'event_type' AS event_type,
	coalesce(kept -> 'event_data', kept -> 'renamed') AS data, kept ->> 'traceparent' AS traceparent,
	(kept ->> 'created_at')::timestamptz AS created_at FROM chaos.record`

// prepareDatabase opens our own pool, sets up, and returns the URL of the database for the relay's role.
func (p *path) prepareDatabase(ctx context.Context, databaseURL string) (relayURL string, err error) {
	if p.pool, err = pgxpool.New(ctx, databaseURL+"&application_name=chaos"); err != nil {
		return "", fmt.Errorf("opening a pool: %w", err)
	}
	for _, statement := range setUp {
		if _, err := p.pool.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("preparing the database: %w", err)
		}
	}
	database, err := url.Parse(databaseURL)
	if err != nil {
		return "", err
	}
	database.User = url.UserPassword(relayRole, "chaos")
	return database.String(), nil
}

// alter runs statements in one transaction, in sessions of its own. It tries again while the server
// is away.
func (p *path) alter(ctx context.Context, statements ...string) error {
	return p.await(ctx, statements[0], func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			for _, statement := range slices.Concat([]string{"SET LOCAL lock_timeout = '2s'"}, statements) {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// execute runs statements one after another, without a transaction, which VACUUM and ALTER SYSTEM refuse. It tries again while the server is away.
func (p *path) execute(ctx context.Context, statements ...string) error {
	return p.await(ctx, statements[0], func(ctx context.Context) error {
		for _, statement := range statements {
			if _, err := p.pool.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}
