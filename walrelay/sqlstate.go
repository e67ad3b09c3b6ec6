package walrelay

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// reaction is what the relay does after an error has ended its session.
type reaction int

const (
	// unknown tries again after a second, then after minutes. Each session may send again what the last one sent.
	unknown reaction = iota
	passes           // tries again at once, then after seconds
	standsBy
	waitsLong // tries again after half an hour or more
	stops     // ends Run with a *SetupError
)

// sqlState is the reaction to one SQLSTATE, in every phase of a session.
type sqlState struct {
	reaction reaction
	remedy   string // of stops
	inWAL    bool   // the cause can be a change in the WAL, which the remedy does not mend
}

const (
	mendLogin = "check user, password, database and pg_hba.conf"
	mendTable = "give public.outbox the columns and types of the migrations, and the publication no column list; then start the relay again"
	mendText  = "correct or delete the rows of outbox whose text is not valid UTF-8; then start the relay again"
)

// sqlStates lists the SQLSTATEs with a known reaction. Every other one is unknown. If the relay
// stopped for an error that passes, a person would have to start it at night. If it hurried after
// an error that stays, it would flood the stream.
var sqlStates = map[string]sqlState{
	"08000": {reaction: passes}, // connection_exception
	"08001": {reaction: passes}, // sqlclient_unable_to_establish_sqlconnection
	"08003": {reaction: passes}, // connection_does_not_exist
	"08004": {reaction: passes}, // sqlserver_rejected_establishment_of_sqlconnection
	"08006": {reaction: passes}, // connection_failure
	// undefined_object means that the slot was dropped after preflight, which looks again. For a publication
	// see publicationGone.
	"42704": {reaction: passes},
	"42710": {reaction: passes}, // duplicate_object: another relay has made the slot
	"53300": {reaction: passes}, // too_many_connections
	"57P01": {reaction: passes}, // admin_shutdown
	"57P02": {reaction: passes}, // crash_shutdown
	"57P03": {reaction: passes}, // cannot_connect_now: it is starting or stopping

	"55006": {reaction: standsBy}, // object_in_use: another relay streams from the slot

	// protocol_violation. All of PgBouncer's own errors have it, such as "unsupported startup
	// parameter".
	"08P01": {reaction: stops, remedy: "connect to PostgreSQL itself, not through a pooler"},
	// feature_not_supported. Logical decoding on a standby of PostgreSQL 15 and older.
	"0A000": {reaction: stops, remedy: "connect to a primary, and check that its settings allow logical decoding"},
	"22021": {reaction: stops, remedy: mendText, inWAL: true}, // character_not_in_repertoire
	"22P05": {reaction: stops, remedy: mendText, inWAL: true}, // untranslatable_character
	"28000": {reaction: stops, remedy: mendLogin},             // invalid_authorization_specification: no such user, pg_hba.conf
	"28P01": {reaction: stops, remedy: mendLogin},             // invalid_password
	"3D000": {reaction: stops, remedy: mendLogin},             // invalid_catalog_name: no such database
	"42501": { // insufficient_privilege
		reaction: stops,
		remedy: "give the relay's user the REPLICATION attribute (on RDS: rds_replication) and role outbox_relay; " +
			"where outbox has row-level security, take it off or give the user BYPASSRLS",
	},
	"42703": {reaction: stops, remedy: mendTable}, // undefined_column
	"42883": {reaction: stops, remedy: mendTable}, // undefined_function: no operator for a column's new type
	"42P01": {reaction: stops, remedy: mendTable}, // undefined_table
	// configuration_limit_exceeded
	"53400": {reaction: stops, remedy: "the relay needs two free slots while it loads: drop one or raise max_replication_slots"},
}

// decodeError means that a row or message cannot be understood, now or when it is read again.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

// errInitialLoad marks the errors of a load. Every attempt sends all rows again, so a load is never
// repeated at once.
var errInitialLoad = errors.New("initial load")

// react returns the reaction to an error that has ended a session. With stops the error is a *SetupError, or one of Kinesis.
func (r *Relay) react(err error) (reaction, error) {
	var setup *SetupError
	var undecodable *decodeError
	var scan pgx.ScanArgError
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		return passes, nil
	case errors.As(err, &setup) || isPermanent(err):
		return stops, err
	case errors.Is(err, errSlotActive):
		return standsBy, err
	case errors.Is(err, errOutlasts):
		return waitsLong, err
	case errors.Is(err, errOldPrimary) || errors.Is(err, errOtherServer):
		return passes, err
	case errors.As(err, &undecodable) || errors.As(err, &scan):
		return stops, r.setupError(err, sqlState{remedy: mendTable, inWAL: true})
	case errors.As(err, &pgErr):
		state := sqlStates[pgErr.Code]
		switch {
		case pgErr.Code == "28P01" && r.database.MayBeRotating():
			return passes, err
		case state.reaction == stops:
			return stops, r.setupError(err, state)
		case state.reaction == passes && errors.Is(err, errInitialLoad):
			return unknown, err
		}
		return state.reaction, err
	case strings.Contains(err.Error(), "server refused TLS connection"): // pgconn exports no error for it
		return stops, &SetupError{err.Error(), "turn ssl on at the server, and check that host and port are PostgreSQL's"}
	case errors.Is(err, errInitialLoad) || !isConnection(err):
		return unknown, err
	}
	return passes, err
}

func (r *Relay) setupError(err error, state sqlState) error {
	remedy := state.remedy
	if state.inWAL {
		remedy += ". If it stops again, the WAL holds a change that can never be decoded: " + dropSlot(r.slot)
	}
	return &SetupError{err.Error(), remedy}
}

// isConnection reports whether err is about reaching the server or Kinesis. Such errors are about
// addresses, names, certificates and lost connections.
func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var call *smithy.OperationError
	return errors.As(err, &connect) || errors.As(err, &network) || errors.As(err, &call) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// streak counts failures in a row, and waits longer after each.
type streak struct {
	first, longest time.Duration // of a wait
	attempts       int
	since          time.Time
}

// failed counts a failure and returns how long to wait. streamed is how long the session had been streaming. One that streamed for longer
// than any wait begins a new streak, because its failure cannot come more often than after the longest wait.
func (s *streak) failed(streamed time.Duration) time.Duration {
	if streamed > s.longest {
		s.attempts = 0
	}
	if s.attempts++; s.attempts == 1 {
		s.since = time.Now()
	}
	return backoffBetween(s.first, s.longest, s.attempts)
}
