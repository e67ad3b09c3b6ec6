package migrate_test

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/migrate"
	migrations "rds-outbox-demo/sql/migrations"
)

func TestOutboxConstraints(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)

	// jsonb prints {"a": "..."}, which is 9 characters around the value.
	const overhead = len(`{"a": ""}`)
	for name, row := range map[string]struct {
		column string
		value  any
		want   string // constraint, SQLSTATE, or "" when the row is accepted
	}{
		"DataOfExactly60KiB":         {"event_data", `{"a":"` + strings.Repeat("x", 61440-overhead) + `"}`, ""},
		"DataOneByteLonger":          {"event_data", `{"a":"` + strings.Repeat("x", 61441-overhead) + `"}`, "outbox_event_data_size_check"},
		"DataCountedInBytes":         {"event_data", `{"a":"` + strings.Repeat("é", 30720) + `"}`, "outbox_event_data_size_check"},
		"DataThatJsonbMakesLonger":   {"event_data", `{"a":1e61440}`, "outbox_event_data_size_check"},
		"DataEmptyObject":            {"event_data", `{}`, ""},
		"DataArray":                  {"event_data", `[{}]`, "outbox_event_data_object_check"},
		"DataJSONNull":               {"event_data", `null`, "outbox_event_data_object_check"},
		"DataString":                 {"event_data", `"{}"`, "outbox_event_data_object_check"},
		"DataMissing":                {"event_data", nil, "23502"},
		"AggregateIDEmpty":           {"aggregate_id", "", "outbox_aggregate_id_check"},
		"AggregateIDOfOneCharacter":  {"aggregate_id", "1", ""},
		"AggregateIDOf255Characters": {"aggregate_id", strings.Repeat("🚗", 255), ""},
		"AggregateIDOf256Characters": {"aggregate_id", strings.Repeat("a", 256), "22001"},
		"VersionZero":                {"aggregate_version", 0, "outbox_aggregate_version_check"},
		"VersionOne":                 {"aggregate_version", 1, ""},
		"VersionOf63Bits":            {"aggregate_version", int64(9223372036854775807), ""},
		"TypeEmpty":                  {"aggregate_type", "", "outbox_aggregate_type_check"},
		"TypeOfOneLetter":            {"aggregate_type", "C", ""},
		"TypeWithEveryCharacter":     {"aggregate_type", "aZ09._-", ""},
		"TypeOf100Characters":        {"aggregate_type", strings.Repeat("a", 100), ""},
		"TypeOf101Characters":        {"aggregate_type", strings.Repeat("a", 101), "22001"},
		"TypeStartingWithADigit":     {"aggregate_type", "1Car", "outbox_aggregate_type_check"},
		"TypeWithSpace":              {"aggregate_type", "Car ", "outbox_aggregate_type_check"},
		"TypeWithLineEnd":            {"aggregate_type", "Car\n", "outbox_aggregate_type_check"},
		"TypeWithUmlaut":             {"aggregate_type", "Käfer", "outbox_aggregate_type_check"},
		"EventTypeEmpty":             {"event_type", "", "outbox_event_type_check"},
		"EventTypeOf100Characters":   {"event_type", strings.Repeat("Z", 100), ""},
		"EventTypeWithSlash":         {"event_type", "Car/Created", "outbox_event_type_check"},
		"EventTypeWithLineEnd":       {"event_type", "CarCreated\n", "outbox_event_type_check"},
		"TraceparentMissing":         {"traceparent", nil, ""},
		"TraceparentOf55Characters":  {"traceparent", strings.Repeat("0", 55), ""},
		"TraceparentOf56Characters":  {"traceparent", strings.Repeat("0", 56), "22001"},
		"IDMissing":                  {"id", nil, "23502"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := insertOutbox(t, db, map[string]any{row.column: row.value})
			require.Equal(t, row.want, refusal(t, err))
		})
	}

	t.Run("VersionUsedTwice", func(t *testing.T) {
		t.Parallel()
		same := map[string]any{"aggregate_id": "twice"}
		require.NoError(t, insertOutbox(t, db, same))
		require.Equal(t, "outbox_pkey", refusal(t, insertOutbox(t, db, same)))
	})

	t.Run("EventIDUsedTwice", func(t *testing.T) {
		t.Parallel()
		id := uuid.NewString()
		require.NoError(t, insertOutbox(t, db, map[string]any{"id": id}))
		require.Equal(t, "outbox_id_key", refusal(t, insertOutbox(t, db, map[string]any{"id": id})))
	})

	t.Run("CarVersionZero", func(t *testing.T) {
		t.Parallel()
		_, err := db.Pool.Exec(t.Context(), domain.Insert, uuid.New(), 0)
		require.Equal(t, "cars_version_check", refusal(t, err))
	})
}

// outOfTheRelaysSight are statements after which rows of outbox would not reach the stream, or not as they are. Only the owner may run them.
var outOfTheRelaysSight = map[string]string{
	"RenameOutbox":         "ALTER TABLE outbox RENAME TO events",
	"MoveOutbox":           "ALTER TABLE outbox SET SCHEMA pg_temp",
	"UnlogOutbox":          "ALTER TABLE outbox SET UNLOGGED",
	"OwnOutbox":            "ALTER TABLE outbox OWNER TO CURRENT_USER",
	"RenameColumn":         "ALTER TABLE outbox RENAME COLUMN event_data TO data",
	"AddColumn":            "ALTER TABLE outbox ADD COLUMN note text",
	"HideRows":             "ALTER TABLE outbox ENABLE ROW LEVEL SECURITY",
	"ReplicaIdentity":      "ALTER TABLE outbox REPLICA IDENTITY NOTHING",
	"DropOutbox":           "DROP TABLE outbox",
	"Inherit":              "CREATE TABLE pg_temp.child () INHERITS (outbox)",
	"Trigger":              "CREATE TRIGGER hide BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
	"Rule":                 "CREATE RULE hide AS ON INSERT TO outbox DO INSTEAD NOTHING",
	"PublishUpdates":       "ALTER PUBLICATION outbox_publication SET (publish = 'update')",
	"PublishLess":          "ALTER PUBLICATION outbox_publication SET TABLE outbox WHERE (aggregate_version > 1)",
	"PublishNothing":       "ALTER PUBLICATION outbox_publication DROP TABLE outbox",
	"RenamePublication":    "ALTER PUBLICATION outbox_publication RENAME TO other",
	"DropPublication":      "DROP PUBLICATION outbox_publication",
	"AnotherPublication":   "CREATE PUBLICATION other FOR TABLE outbox",
	"CreateInPublic":       "CREATE TABLE public.mine (n int)",
	"CreateSchema":         "CREATE SCHEMA mine",
	"RenameSchema":         "ALTER SCHEMA public RENAME TO private",
	"SettingOfTheDatabase": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = pg_temp', current_database()); END $$",
	"MakeASlot":            "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
	"MoveASlot":            "SELECT pg_replication_slot_advance('outbox_relay', '0/1')",
	"DropASlot":            "SELECT pg_drop_replication_slot('outbox_relay')",
}

// PostgreSQL 14 and older let everybody create in schema public.
func TestNobodyCreatesInSchemaPublic(t *testing.T) {
	t.Parallel()
	database := emptyDatabase(t)
	query(t, database, "GRANT CREATE ON SCHEMA public TO PUBLIC")
	_, err := migrate.Up(t.Context(), database, migrate.Options{})
	require.NoError(t, err)
	require.Equal(t, "f", query(t, database, "SELECT left(has_schema_privilege('public', 'public', 'CREATE')::text, 1)"))
	require.Equal(t, "t", query(t, database, "SELECT left(has_schema_privilege('public', 'public', 'USAGE')::text, 1)"))
}

func TestGrants(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	require.NoError(t, insertOutbox(t, db, nil))

	statements := map[string]string{
		"InsertOutbox": `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data)
			VALUES (gen_random_uuid(), 'Car', gen_random_uuid(), 1, 'CarCreated', '{}')`,
		"SelectOutbox":   "SELECT * FROM outbox",
		"SelectAges":     "SELECT id, created_at FROM outbox",
		"UpdateOutbox":   "UPDATE outbox SET traceparent = NULL",
		"DeleteOutbox":   "DELETE FROM outbox",
		"TruncateOutbox": "TRUNCATE outbox",
		"InsertCar":      strings.NewReplacer("$1", "gen_random_uuid()", "$2", "1").Replace(domain.Insert) + " RETURNING version",
		"SelectCar":      "SELECT * FROM cars",
		"UpdateCar":      "UPDATE cars SET version = version + 1 RETURNING version",
		"DeleteCar":      "DELETE FROM cars",
		"InsertKey": `INSERT INTO idempotency (route, caller_hash, key, request_hash, status, location, etag, body, expires_at)
			VALUES ('POST /cars', sha256('a'), 'k', sha256('b'), 201, '', '', '', now())`,
		"SelectKeys":    "SELECT * FROM idempotency",
		"SelectKeyEnds": "SELECT expires_at FROM idempotency",
		"UpdateKeys":    "UPDATE idempotency SET status = 200",
		"DeleteKeys":    "DELETE FROM idempotency",
	}
	for name, statement := range outOfTheRelaysSight {
		statements[name] = statement
	}
	for role, allowed := range map[string][]string{
		"outbox_api":       {"InsertOutbox", "InsertCar", "SelectCar", "UpdateCar", "DeleteCar", "InsertKey", "SelectKeys", "SelectKeyEnds", "DeleteKeys"},
		"outbox_relay":     {"SelectOutbox", "SelectAges"},
		"outbox_retention": {"SelectAges", "DeleteOutbox", "SelectKeyEnds", "DeleteKeys"},
		"outbox_canary":    {"InsertOutbox"},
		"outbox_carstats":  {}, // handlers/carstats tests the rights on its own tables
	} {
		for name, statement := range statements {
			t.Run(role+"/"+name, func(t *testing.T) {
				t.Parallel()
				if name == "PublishLess" {
					pgtest.RequireFilters(t, db.Pool)
				}
				tx, err := db.Pool.Begin(t.Context())
				require.NoError(t, err)
				defer func() { _ = tx.Rollback(t.Context()) }()
				_, err = tx.Exec(t.Context(), "SET LOCAL ROLE "+role)
				require.NoError(t, err)
				_, err = tx.Exec(t.Context(), statement)
				if slices.Contains(allowed, name) {
					require.NoError(t, err)
				} else {
					require.Equal(t, "42501", refusal(t, err), "insufficient_privilege")
				}
			})
		}
	}
}

// Roles belong to the server, so databases that are migrated at the same moment may create the same role.
func TestRolesOfTwoDatabasesAtOnce(t *testing.T) {
	t.Parallel()
	unique := "t" + strings.ToLower(rand.Text()[:8]) + "_"
	files := fstest.MapFS{}
	all, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	for _, name := range all {
		text, err := fs.ReadFile(migrations.FS, name)
		require.NoError(t, err)
		renamed := strings.NewReplacer("outbox_api", unique+"api", "outbox_relay", unique+"relay", "outbox_retention", unique+"retention", "outbox_carstats", unique+"carstats", "outbox_canary", unique+"canary").Replace(string(text))
		files[name] = &fstest.MapFile{Data: []byte(renamed)}
	}
	server, err := pgx.ParseConfig(pgtest.ServerURL(t))
	require.NoError(t, err)
	databases := make([]*pgx.ConnConfig, 6)
	var group errgroup.Group
	for i := range databases {
		databases[i] = emptyDatabase(t)
	}
	for _, database := range databases {
		group.Go(func() error {
			_, err := migrate.Up(t.Context(), database, migrate.Options{Files: files})
			return err
		})
	}
	require.NoError(t, group.Wait())
	for _, database := range databases {
		require.Equal(t, "t", query(t, database, "SELECT left(has_table_privilege('"+unique+"api', 'outbox', 'INSERT')::text, 1)"))
	}

	// Down in one leaves them to the others.
	_, err = migrate.DownTo(t.Context(), databases[0], 0, migrate.Options{Files: files})
	require.NoError(t, err)
	require.Equal(t, "t", query(t, databases[1], "SELECT left(has_table_privilege('"+unique+"relay', 'outbox', 'SELECT')::text, 1)"))
	for _, database := range databases[1:] {
		_, err := migrate.DownTo(t.Context(), database, 0, migrate.Options{Files: files})
		require.NoError(t, err)
	}
	query(t, server, fmt.Sprintf("DROP ROLE %[1]sapi, %[1]srelay, %[1]sretention, %[1]scarstats", unique))
}

// insertOutbox inserts a good row of a new aggregate with some columns replaced.
func insertOutbox(t *testing.T, db *pgtest.DB, replaced map[string]any) error {
	t.Helper()
	row := map[string]any{
		"id": uuid.NewString(), "aggregate_type": "Car", "aggregate_id": uuid.NewString(), "aggregate_version": 1,
		"event_type": "CarCreated", "event_data": "{}", "traceparent": nil,
	}
	maps.Copy(row, replaced)
	columns := slices.Sorted(maps.Keys(row))
	_, err := db.Pool.Exec(t.Context(), "INSERT INTO outbox ("+strings.Join(columns, ", ")+") VALUES (@"+strings.Join(columns, ", @")+")", pgx.NamedArgs(row))
	return err
}

// refusal returns the constraint that refused, the SQLSTATE where none did, or "".
func refusal(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	if refused.ConstraintName != "" {
		return refused.ConstraintName
	}
	return refused.Code
}
