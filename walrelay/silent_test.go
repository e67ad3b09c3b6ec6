package walrelay_test

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// The server's address is gone: packets vanish, nothing is refused. The relay notices by the answers that do not come.
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

			proxy := newVanishing(t, r, message)
			r.start(t)
			if message == "" {
				r.await(t, 5)
				proxy.vanished.Store(true)
				r.append(t, "a", 5, 2, 2)
				rows += 5
			}
			r.eventually(t, "the server to be gone", proxy.vanished.Load)
			r.eventually(t, "another connection", func() bool { return strings.Contains(r.logged(), "connecting again") })
			r.streaming(t)
			r.append(t, "b", 5, 1, 1)
			r.requireWhole(t, r.await(t, rows+5))
		})
	}
}

// vanishing is a way to the server on which it vanishes for the connections that there are; later ones pass.
type vanishing struct{ vanished atomic.Bool }

// newVanishing puts itself between r's relays and the server. It vanishes when a relay sends the message, if there is one.
func newVanishing(t *testing.T, r *rig, message string) *vanishing {
	t.Helper()
	config, err := pgx.ParseConfig(r.db.URL)
	require.NoError(t, err)
	address := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	v := &vanishing{}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			old := !v.vanished.Load()
			gone := func() bool { return old && v.vanished.Load() }
			pass := func(to, from net.Conn, look func([]byte)) {
				buffer := make([]byte, 32<<10)
				for {
					n, err := from.Read(buffer)
					look(buffer[:n])
					if err == nil && gone() {
						continue
					}
					if err == nil {
						_, err = to.Write(buffer[:n])
					}
					if err != nil {
						if !gone() {
							_ = to.Close()
						}
						return
					}
				}
			}
			go pass(client, server, func([]byte) {})
			go pass(server, client, func(sent []byte) {
				if message != "" && bytes.Contains(sent, []byte(message)) {
					v.vanished.Store(true)
				}
			})
		}
	}()
	r.db.URL = strings.Replace(r.db.URL, address, listener.Addr().String(), 1)
	return v
}
