package walrelay

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/stretchr/testify/require"
)

// What a relay keeps between two messages of the WAL does not grow with the time that it runs. These are all of its structures that could.
// What waits for Kinesis has the bounds of full, and TestMemoryIsFlatBehindAStuckRecord holds them behind a record that never goes.
func TestNothingGrowsWithTime(t *testing.T) {
	t.Parallel()
	const many = 20_000
	t.Run("Aggregates", func(t *testing.T) { // lanes, ready, transactions
		t.Parallel()
		p := newPipeline()
		for n := range many {
			tx := p.begin()
			p.add(&pending{key: fmt.Sprint("a", n), data: []byte("1"), transaction: tx})
			p.commit(tx, pglogrepl.LSN(n+1))
			p.settle(p.take(1, 100), []bool{true})
		}
		require.Empty(t, p.lanes)
		require.Empty(t, p.ready)
		require.Less(t, cap(p.ready), many/10)
		require.Zero(t, p.length())
		require.Zero(t, p.records)
		require.Zero(t, p.bytes)
		require.Zero(t, p.unanswered)
		require.Less(t, p.unreported, reportedRows)
	})
	t.Run("RecordsOfAHotAggregate", func(t *testing.T) { // lane.records, which is never empty here
		t.Parallel()
		p := newPipeline()
		next := func() { p.add(&pending{key: "hot", data: []byte("1")}) }
		next()
		for range many {
			next()
			p.settle(p.take(1, 100), []bool{true})
		}
		require.Len(t, p.lanes["hot"].records, 1)
		require.Less(t, cap(p.lanes["hot"].records), many/10)
		require.Less(t, cap(p.ready), many/10)
	})
	t.Run("Relations", func(t *testing.T) { // decoder.outboxes
		t.Parallel()
		// A publication for all tables describes each table when it changes.
		d := decoder{outboxes: map[uint32][]string{}}
		for id := range uint32(many) {
			other := []byte{'R'}
			other = binary.BigEndian.AppendUint32(other, id+1_000_000)
			other = append(other, fmt.Sprintf("public\x00t%d\x00d\x00\x00", id)...)
			_, err := d.decode(0, other)
			require.NoError(t, err)
			_, err = d.decode(0, relationMessage(outboxColumns...))
			require.NoError(t, err)
		}
		require.Len(t, d.outboxes, 1)
	})
}
