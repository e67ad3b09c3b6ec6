package outboxctl

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

// A replay reads by outbox_pkey from page to page. Where that no longer has the server's order, or lacks entries, the replay must not
// call itself complete.
func TestReplayOverABadIndexIsNotComplete(t *testing.T) {
	t.Parallel()
	var events []outbox.Event
	for n := range 2 * replayPage {
		events = append(events, event(fmt.Sprintf("%c%d", "Aaa"[n%3]+byte(n%26), n), 1))
	}
	for name, tc := range map[string]struct {
		harm func(*testing.T, *rig)
		want string
	}{
		"Order": {func(t *testing.T, r *rig) {
			r.commit(t, events...)
			pgtest.Recollate(t, r.db.Pool)
		}, "at a place that the server no longer gives it: REINDEX TABLE public.outbox"},
		"Entries": {func(t *testing.T, r *rig) {
			r.commit(t, events[:10]...)
			r.exec(t, "UPDATE pg_index SET indisready = false WHERE indexrelid = 'outbox_pkey'::regclass")
			r.commit(t, events[10:]...)
			r.exec(t, "UPDATE pg_index SET indisready = true WHERE indexrelid = 'outbox_pkey'::regclass")
		}, "the others were purged meanwhile, or index outbox_pkey does not lead to them"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.startRelayTo(t, elsewhere)
			tc.harm(t, r)
			// The server would read the whole of so small a table, and sort it.
			r.exec(t, fmt.Sprintf("ALTER DATABASE %s SET enable_sort = off", r.db.Pool.Config().ConnConfig.Database))
			result := r.run(t, "replay", "--all", "--rate", "100000")
			require.Equal(t, 1, result.code)
			require.Contains(t, result.err, tc.want)
			require.Contains(t, result.err, "run it again")

			r.exec(t, "REINDEX TABLE public.outbox")
			report := decode[replayReport](t, r.run(t, "replay", "--all", "--json", "--rate", "100000", "--replay-id", "mended"))
			require.Equal(t, len(events), report.Sent)
			require.ElementsMatch(t, idsOf(events), r.markers(t)["mended"])
		})
	}
}
