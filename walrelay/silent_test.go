package walrelay_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/walrelay"
)

// The server's address is gone. Packets vanish, and nothing is refused. The relay notices because answers do not
// come.
func TestASilentServerIsLeft(t *testing.T) {
	t.Parallel()
	for name, message := range map[string]string{
		"WhileStreaming": "",
		"AtItsStart":     "START_REPLICATION",
		"InItsPreflight": "wal_level",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.exec(t, "ALTER ROLE pgtest IN DATABASE "+r.database(t)+" SET wal_sender_timeout = '1s'")
			stop := r.start(t) // makes the slot
			r.streaming(t)
			require.NoError(t, stop())
			r.append(t, "a", 5, 1, 1)
			rows := 5

			proxy := r.proxy(t, func(proxy *labtest.Proxy, fromServer bool, piece []byte) []byte {
				if message != "" && !fromServer && bytes.Contains(piece, []byte(message)) {
					proxy.Vanish()
				}
				return piece
			})
			r.runWith(t, func(relay *walrelay.Relay) { relay.SetupFor(walrelay.SetupTimeout) })
			if message == "" {
				r.await(t, 5)
				proxy.Vanish()
				r.append(t, "a", 5, 2, 2)
				rows += 5
			}
			r.eventually(t, "the server to be gone", proxy.Vanished)
			r.eventually(t, "another connection", func() bool { return strings.Contains(r.logged(), "connecting again") })
			r.streaming(t)
			r.append(t, "b", 5, 1, 1)
			r.requireWhole(t, r.await(t, rows+5))
		})
	}
}
