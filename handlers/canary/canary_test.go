package canary_test

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/handlers/canary"
	"rds-outbox-demo/internal/pgtest"
)

func TestBeatCommitsOneEvent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	config.RuntimeParams["role"] = "outbox_canary" // its rights suffice
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })

	at := time.Date(2026, 11, 29, 10, 0, 0, 0, time.FixedZone("east", 3600))
	first, err := canary.Beat(t.Context(), conn, at)
	require.NoError(t, err)
	second, err := canary.Beat(t.Context(), conn, at)
	require.NoError(t, err)
	rows, err := db.Pool.Query(t.Context(), "SELECT * FROM outbox ORDER BY id")
	require.NoError(t, err)
	beats, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbgen.Outbox])
	require.NoError(t, err)
	require.Len(t, beats, 2)
	require.Equal(t, first, beats[0].ID)
	require.Equal(t, second, beats[1].ID)
	require.NotEqual(t, beats[0].AggregateID, beats[1].AggregateID, "each is an aggregate of its own")
	for _, beat := range beats {
		require.Equal(t, "Canary", beat.AggregateType)
		require.Equal(t, "CanaryBeat", beat.EventType)
		require.EqualValues(t, 1, beat.AggregateVersion)
		golden, err := os.ReadFile("testdata/CanaryBeat.json")
		require.NoError(t, err)
		require.JSONEq(t, string(golden), string(beat.EventData))
	}
}

func TestABeatThatIsNotCommittedIsAnError(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	_, err := db.Pool.Exec(t.Context(), "DROP TABLE outbox")
	require.NoError(t, err)
	_, err = canary.Beat(t.Context(), db.Pool, time.Now())
	require.ErrorContains(t, err, "committing the beat")
}
