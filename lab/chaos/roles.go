package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

var roleTrials = []trial{{kind: "role-settings", try: hostileSettings}}

// hostile are settings that change what a statement or a value means, or how long it may take. An administrator may give them to a role.
var hostile = []string{
	`search_path = "$user", public`, // where a table of the same name stands, see decoy
	"row_security = on", "client_min_messages = error", "DateStyle = 'SQL, DMY'", "IntervalStyle = sql_standard", "TimeZone = 'Asia/Tokyo'",
	"bytea_output = escape", "extra_float_digits = 0", "standard_conforming_strings = off", "default_transaction_isolation = 'serializable'",
	"default_transaction_read_only = on", "statement_timeout = '100ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'",
}

// decoy is an empty table that the relay's role finds before the real one, if a statement does not
// name the schema.
var decoy = []string{
	"CREATE SCHEMA IF NOT EXISTS " + relayRole + " AUTHORIZATION " + relayRole,
	"CREATE TABLE IF NOT EXISTS " + relayRole + ".outbox (LIKE public.outbox INCLUDING ALL)",
	"GRANT SELECT ON " + relayRole + ".outbox TO " + relayRole,
}

// hostileSettings lets the relay load and stream in sessions that begin with hostile settings.
func hostileSettings(ctx context.Context, r *round, _ *rand.Rand) error {
	change := slices.Clone(decoy)
	for _, setting := range hostile {
		change = append(change, fmt.Sprintf("ALTER ROLE %s SET %s", relayRole, setting))
	}
	err := r.alter(ctx, change...)
	if err == nil {
		err = r.DropSlot(ctx)
	}
	if err == nil {
		err = r.await(ctx, "the relay to load and stream in spite of its role's settings", r.slotActive(true))
	}
	return errors.Join(err, r.alter(context.WithoutCancel(ctx),
		"ALTER ROLE "+relayRole+" RESET ALL", "DROP SCHEMA IF EXISTS "+relayRole+" CASCADE"))
}
