package local

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/outbox"
)

// A relay that keeps no order, as the initial load of DMS, is enough for a subscriber in order. The whole table is put on the stream in any
// order and a tenth of it twice, from the consumer on every hop fails, and the rule of the bus delivers in disorder and twice.
func TestAnUnorderedRelayIsEnoughForASubscriberInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, patientCarStats(1000), func(c *Config) { c.InOrder = true })
	r.Relay.Stop(t.Context())
	_, err := r.pool.Exec(t.Context(), `CREATE TABLE counted (place serial, car text, version bigint);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO counted (car, version) VALUES (NEW.aggregate_id, NEW.aggregate_version); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION note()`)
	require.NoError(t, err)
	const cars = 25
	for n := range cars {
		id := r.post(t)
		for version := range 6 {
			r.change(t, id, http.MethodPatch, domain.Change(n+version, "a color"))
		}
		if n%5 == 0 {
			r.change(t, id, http.MethodDelete, "")
		}
	}
	rows, err := r.pool.Query(t.Context(), "SELECT * FROM outbox")
	require.NoError(t, err)
	table, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbgen.Outbox])
	require.NoError(t, err)
	require.Len(t, table, cars*7+cars/5)

	faults := []*awslocal.Active{
		r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.2, Seed: 1}),
		r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Count: 3}),
		r.AWS.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Delay, Delay: 2 * time.Second, Rate: 0.4, Seed: 2}),
		r.AWS.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Delay: 2 * time.Second, Rate: 0.4, Seed: 3}),
	}
	random := rand.New(rand.NewPCG(22, 6))
	load := append(table[:len(table):len(table)], table[:len(table)/10]...)
	random.Shuffle(len(load), func(i, j int) { load[i], load[j] = load[j], load[i] })
	behind, seen := 0, map[string]int64{}
	for _, row := range load {
		line, err := outbox.Record{Row: row, Operation: outbox.OperationLoad, Timestamp: time.Now()}.AppendJSON(nil)
		require.NoError(t, err)
		require.NoError(t, r.PutRecord(t.Context(), row.AggregateID, line))
		if row.AggregateVersion < seen[row.AggregateID] {
			behind++
		}
		seen[row.AggregateID] = max(seen[row.AggregateID], row.AggregateVersion)
	}
	require.Greater(t, behind, len(table)/4, "the load is not shuffled")

	r.requireStats(t)
	for _, fault := range faults {
		require.NotZero(t, fault.Struck(), fault.Fault())
	}
	var events, misplaced, held int
	require.NoError(t, r.pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE version <> turn), (SELECT count(*) FROM inbox_held)
		FROM (SELECT version, row_number() OVER (PARTITION BY car ORDER BY place) AS turn FROM counted) AS t`).Scan(&events, &misplaced, &held))
	require.Equal(t, []int{len(table), 0, 0}, []int{events, misplaced, held})
	require.Regexp(t, `car stats" .* held=[1-9]`, r.logged())
	t.Logf("%d events of %d cars, %d of %d records behind a newer version on the stream: all counted, in order, none twice", events, cars, behind, len(load))
}
