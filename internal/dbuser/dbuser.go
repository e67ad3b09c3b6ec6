// Package dbuser makes the login users of the components, each with the rights of its task and no others.
//
// In: a transaction of the database's owner, and a name and password. Out: a user who can log in with them. Groups and their grants
// on tables come from sql/migrations, so those run first. Everything can be done again at any time. An existing user keeps its
// objects and its open sessions.
package dbuser

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// HeartbeatSchema is where AWS DMS keeps its heartbeat table (endpoint setting HeartbeatSchema). The DMS user may create tables in it.
const HeartbeatSchema = "dms_heartbeat"

// Component is what a user is for.
type Component struct {
	group       string
	replication bool   // may make and read replication slots
	schema      string // in which it may create tables, if any
}

// The components with a user of their own.
var (
	// API writes cars and appends to outbox. It cannot read, change or remove an event.
	API = Component{group: "outbox_api"}
	// DMS reads outbox and its changes in the WAL, and writes nothing but its heartbeat.
	DMS = Component{group: "outbox_relay", replication: true, schema: HeartbeatSchema}
	// Retention sees the id and age of events, and deletes them. It cannot read what they say, or write any.
	Retention = Component{group: "outbox_retention"}
	// CarStats keeps its totals and its inbox. It sees neither cars nor outbox, because it learns everything from the bus.
	CarStats = Component{group: "outbox_carstats"}
	// Canary appends to outbox. It cannot read, change or remove an event, and knows no other table.
	Canary = Component{group: "outbox_canary"}
)

// Login is a user's name and password.
type Login struct{ Name, Password string }

// Lock keeps other transactions that call it waiting until tx ends. Call it before reading the passwords to be set. Otherwise the
// transaction that read first could set an old password last.
func Lock(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('dbuser'))"); err != nil {
		return fmt.Errorf("waiting for another program that sets passwords: %w", err)
	}
	return nil
}

// Ensure makes the user of c, or gives an existing one what is missing, and sets its password, all in tx.
//
// The password is set even when it is the same, because nobody can ask whether it is. Its stored form is salted, and only superusers, whom RDS
// does not have, may read it. A trial login would be wrong on a server that trusts everybody. Setting the password costs one row. It does not
// touch sessions, because a password is checked at login only.
func Ensure(ctx context.Context, tx pgx.Tx, c Component, login Login) error {
	if err := c.ensure(ctx, tx, login); err != nil {
		return fmt.Errorf("making database user %q: %w", login.Name, err)
	}
	return nil
}

// Quoting makes any name safe, but a name that needs it breaks in scripts, connection strings and consoles.
var validName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (c Component) ensure(ctx context.Context, tx pgx.Tx, login Login) error {
	if !validName.MatchString(login.Name) {
		return errors.New("the name must be 1 to 63 lower-case letters, digits and underscores, and not start with a digit")
	}
	if login.Name == tx.Conn().Config().User {
		return errors.New("this is the user who makes the others: a component's secret must name a user of its own")
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	password, err := verifier(login.Password, salt)
	if err != nil {
		return err
	}

	exists, err := roleExists(ctx, tx, login.Name)
	if err != nil {
		return err
	}
	if !exists {
		if err := execute(ctx, tx, "CREATE ROLE %I", login.Name); err != nil {
			return err
		}
	}
	var database string
	if err := tx.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return err
	}
	for _, statement := range [][]string{
		{"ALTER ROLE %I LOGIN PASSWORD %L", login.Name, password},
		{"GRANT CONNECT ON DATABASE %I TO %I", database, login.Name},
		{"GRANT %I TO %I", c.group, login.Name},
	} {
		if err := execute(ctx, tx, statement[0], statement[1:]...); err != nil {
			return err
		}
	}
	if c.replication {
		if err := grantReplication(ctx, tx, login.Name); err != nil {
			return err
		}
	}
	if c.schema != "" {
		return ensureSchema(ctx, tx, c.schema, login.Name)
	}
	return nil
}

// grantReplication lets the user replicate. On RDS nobody may set the attribute REPLICATION, and the role rds_replication stands for it.
func grantReplication(ctx context.Context, tx pgx.Tx, user string) error {
	const onRDS = "rds_replication"
	exists, err := roleExists(ctx, tx, onRDS)
	if err != nil {
		return err
	}
	if exists {
		return execute(ctx, tx, "GRANT %I TO %I", onRDS, user)
	}
	return execute(ctx, tx, "ALTER ROLE %I REPLICATION", user)
}

// ensureSchema makes the schema, and lets the user create tables in it. The schema is ours, so that the owner needs no right to act as the
// user, not even for a moment. An older program made it the user's own, which serves as well.
func ensureSchema(ctx context.Context, tx pgx.Tx, schema, user string) error {
	var owner string
	err := tx.QueryRow(ctx, "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = $1", schema).Scan(&owner)
	switch {
	case err == nil && owner == user:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		if err := execute(ctx, tx, "CREATE SCHEMA %I", schema); err != nil {
			return err
		}
	case err != nil:
		return err
	case owner != tx.Conn().Config().User:
		return fmt.Errorf("schema %s belongs to %q: if nothing uses it any more, DROP SCHEMA %s CASCADE and try again", schema, owner, schema)
	}
	return execute(ctx, tx, "GRANT USAGE, CREATE ON SCHEMA %I TO %I", schema, user)
}

func roleExists(ctx context.Context, tx pgx.Tx, name string) (exists bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&exists)
	return exists, err
}

// execute runs a statement that takes no parameters. The server fills in the values: %I is quoted as an identifier, %L as a literal.
func execute(ctx context.Context, tx pgx.Tx, template string, values ...string) error {
	var statement string
	if err := tx.QueryRow(ctx, "SELECT format($1::text, VARIADIC $2::text[])", template, values).Scan(&statement); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", template, err)
	}
	return nil
}
