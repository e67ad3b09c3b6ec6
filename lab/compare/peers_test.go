//go:build peers

package compare_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/bench"
	"rds-outbox-demo/lab/bench/sink"
	"rds-outbox-demo/lab/process"
)

// peer is a relay. Each of them takes walrelay's environment.
type peer struct {
	name    string
	program string // in bin/
	polls   bool   // a table of its own, and no slot
}

var peers = []peer{
	{name: "walrelay", program: "walrelay"},
	{name: "go-pq-cdc", program: "peers/gopqcdc"},
	{name: "watermill-sql", program: "peers/watermill", polls: true},
}

// TestPeers runs walrelay and relays made of other libraries beside each other (`make peers`).
// docs/peers.md says what each line of its table means.
func TestPeers(t *testing.T) {
	rows, rounds, events := number(t, "ROWS", 200_000), number(t, "ROUNDS", 3), number(t, "EVENTS", 10_000)
	lines := append(measure(t, rows, rounds, 0), measure(t, rows, rounds, 10*time.Millisecond)...)
	for _, fault := range faults {
		line := []string{fault.name}
		for _, p := range peers {
			cell := "–"
			if !p.polls || !fault.ofSlots {
				cell = "failed"
				t.Run(fault.name+"/"+p.name, func(t *testing.T) { cell = fault.run(t, p, events) })
			}
			line = append(line, cell)
			t.Logf("%s, %s: %s", fault.name, p.name, cell)
		}
		lines = append(lines, line)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, p := range peers {
		fmt.Fprintf(table, "\t%s", p.name)
	}
	fmt.Fprintln(table)
	for _, line := range lines {
		fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	require.NoError(t, table.Flush())
}

// measure lets the relays drain the same backlog in turns, while Kinesis takes delay to answer a call. The first round warms up
// and is not counted. A relay that polls gets a fiftieth of the rows, because it is that much slower.
func measure(t *testing.T, rows, rounds int, delay time.Duration) [][]string {
	kinesis, err := sink.Start(delay)
	require.NoError(t, err)
	t.Cleanup(kinesis.Close)
	runs := make([]*rig, len(peers))
	db := pgtest.New(t) // of all that read a slot
	for i, p := range peers {
		if p.polls {
			runs[i] = newRig(t, p, pgtest.New(t), kinesis.URL)
			runs[i].fill(t, rows/50)
			runs[i].publish(t, 1)
			continue
		}
		runs[i] = newRig(t, p, db, kinesis.URL)
		for round := range rounds + 1 {
			runs[i].exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", runs[i].slotOf(round))
		}
	}
	runs[0].fill(t, rows)

	names := [4]string{"rows/s", "CPU a row, µs", "memory, MB", "rows a call"}
	var values [4][]bench.Values
	for m := range values {
		values[m] = make([]bench.Values, len(peers))
	}
	for round := range rounds + 1 {
		for i, r := range runs {
			rows := rows
			if r.polls {
				rows /= 50
				r.exec(t, "DELETE FROM watermill_offsets_outbox")
			}
			drained := r.drain(t, round, kinesis, rows)
			t.Logf("%s a call, round %d, %s: %s: %.1f", delay, round, r.name, strings.Join(names[:], ", "), drained)
			for m := range values {
				if round > 0 {
					values[m][i] = append(values[m][i], drained[m])
				}
			}
		}
	}
	var lines [][]string
	for m, name := range names {
		line := []string{fmt.Sprintf("%s (%s a call)", name, delay)}
		for _, v := range values[m] {
			line = append(line, fmt.Sprintf("%.0f ±%.0f %%", v.Median(), 100*v.Spread()))
		}
		lines = append(lines, line)
	}
	return lines
}

func (r *rig) fill(t *testing.T, rows int) {
	t.Helper()
	conn, err := r.db.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, bench.Fill(t.Context(), conn.Conn(), rows, 1))
}

func (r *rig) slotOf(round int) string { return fmt.Sprintf("%s_%d", r.slot, round) }

// drain measures one run, as measure names it. The rate is from the first record on, because go-pq-cdc waits a second before it
// reads its slot.
func (r *rig) drain(t *testing.T, round int, kinesis *sink.Server, rows int) [4]float64 {
	t.Helper()
	before, calls := kinesis.Accepted.Load(), kinesis.Calls.Load()
	r.start(t, r.slotOf(round))
	begun, first := r.await(t, func() bool { return kinesis.Accepted.Load() > before }), kinesis.Accepted.Load()-before
	ended := r.await(t, func() bool { return kinesis.Accepted.Load()-before >= int64(rows) })
	rate := float64(int64(rows)-first) / ended.Sub(begun).Seconds()
	memory := process.PeakMemory(r.program.PID())
	r.stop(t)
	cpu := float64(r.program.CPU().Microseconds()) / float64(rows)
	return [4]float64{rate, cpu, memory, float64(rows) / float64(kinesis.Calls.Load()-calls)}
}
