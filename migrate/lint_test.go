package migrate_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	migrations "rds-outbox-demo/sql/migrations"
)

// waived are the findings that a released file keeps, because a file that has run somewhere is never edited.
var waived = []string{
	"00004_outbox_retention.sql: CREATE INDEX without CONCURRENTLY keeps the writers of outbox waiting", // its header says how to build it beforehand
}

func TestMigrationsAreSafeForTablesWithRows(t *testing.T) {
	t.Parallel()
	require.ElementsMatch(t, waived, lint(t, migrations.FS))
}

func TestLintFindsWhatIsUnsafe(t *testing.T) {
	t.Parallel()
	const header = "-- Why.\n-- Locks: some.\n-- +goose Up\n"
	const down = "\n-- +goose Down\nSELECT 1;\n"
	const noTransaction = "-- +goose NO TRANSACTION\n" + header
	for name, test := range map[string]struct{ file, finding string }{
		"Pattern":           {noTransaction + "SET lock_timeout = 0;\nDROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON cars (a);\nRESET lock_timeout;" + down, ""},
		"UniquePattern":     {noTransaction + "SET lock_timeout = 0;\nDROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE UNIQUE INDEX CONCURRENTLY i ON cars (a);\nRESET lock_timeout;" + down, ""},
		"IndexOfANewTable":  {header + "CREATE TABLE t (a int NOT NULL);\nCREATE INDEX i ON t (a);\nALTER TABLE t ADD CHECK (a > 0);" + down, ""},
		"NullableColumn":    {header + "ALTER TABLE cars ADD COLUMN note text, ADD COLUMN n int NOT NULL DEFAULT 0;" + down, ""},
		"CheckNotValid":     {header + "ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0) NOT VALID;" + down, ""},
		"Validate":          {header + "ALTER TABLE cars VALIDATE CONSTRAINT c;" + down, ""},
		"TwoTransactions":   {noTransaction + "ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0) NOT VALID;\nALTER TABLE cars VALIDATE CONSTRAINT c;" + down, ""},
		"OneTransaction":    {header + "ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0) NOT VALID;\nALTER TABLE public.cars VALIDATE CONSTRAINT c;" + down, "VALIDATE reads cars under the lock of NOT VALID: put it in a file of its own"},
		"InACommentOrText":  {header + "-- CREATE INDEX i ON cars (a);\nCOMMENT ON TABLE cars IS 'x; CREATE INDEX i ON cars (a)';" + down, ""},
		"NoDown":            {header + "SELECT 1;\n", "no Down"},
		"EmptyDown":         {header + "SELECT 1;\n-- +goose Down\n-- nothing\n", "no Down"},
		"NoLocks":           {"-- +goose Up\nSELECT 1;" + down, "no line -- Locks: in the header"},
		"Index":             {header + "CREATE UNIQUE INDEX IF NOT EXISTS i ON cars (a);" + down, "CREATE INDEX without CONCURRENTLY keeps the writers of cars waiting"},
		"InATransaction":    {header + "SET lock_timeout = 0;\nDROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON cars (a);\nRESET lock_timeout;" + down, "CONCURRENTLY needs NO TRANSACTION"},
		"NotRepeatable":     {noTransaction + "SET lock_timeout = 0;\nCREATE INDEX CONCURRENTLY i ON cars (a);\nRESET lock_timeout;" + down, "CREATE INDEX CONCURRENTLY i comes without DROP INDEX CONCURRENTLY IF EXISTS i before it"},
		"IfNotExists":       {noTransaction + "SET lock_timeout = 0;\nDROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON cars (a);\nRESET lock_timeout;" + down, "IF NOT EXISTS takes an INVALID index for made"},
		"LockTimeout":       {noTransaction + "DROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON cars (a);" + down, "CONCURRENTLY needs SET lock_timeout before it and RESET lock_timeout after it"},
		"SetLocal":          {noTransaction + "SET LOCAL lock_timeout = 0;\nSELECT 1;" + down, "SET LOCAL does nothing with NO TRANSACTION"},
		"SetForTheSession":  {header + "SET lock_timeout = 0;\nSELECT 1;" + down, "SET outlives the transaction: write SET LOCAL"},
		"NotNull":           {header + "ALTER TABLE public.cars ADD COLUMN a int NOT NULL;" + down, "ADD COLUMN with NOT NULL and without DEFAULT fails on rows of cars"},
		"NotNullSecond":     {header + "ALTER TABLE cars ADD a int DEFAULT 1, ADD COLUMN IF NOT EXISTS b numeric(3,2) NOT NULL;" + down, "ADD COLUMN with NOT NULL and without DEFAULT fails on rows of cars"},
		"SetNotNull":        {header + "ALTER TABLE cars ALTER COLUMN color SET NOT NULL;" + down, "SET NOT NULL reads cars under a lock"},
		"Volatile":          {header + "ALTER TABLE cars ADD COLUMN a uuid DEFAULT gen_random_uuid();" + down, "a DEFAULT that differs per row rewrites cars under a lock"},
		"Type":              {header + "ALTER TABLE cars ALTER year TYPE bigint;" + down, "a change of type may rewrite cars under a lock"},
		"Check":             {header + "ALTER TABLE cars ADD CONSTRAINT c CHECK (year > 0);" + down, "a constraint without NOT VALID reads cars under a lock"},
		"ForeignKey":        {header + "ALTER TABLE cars ADD FOREIGN KEY (a) REFERENCES t;" + down, "a constraint without NOT VALID reads cars under a lock"},
		"Unique":            {header + "ALTER TABLE cars ADD CONSTRAINT c UNIQUE (a);" + down, "UNIQUE or PRIMARY KEY without USING INDEX builds an index of cars under a lock"},
		"SecondIndexOfMany": {header + "CREATE TABLE t (a int);\nCREATE INDEX i ON t (a);\nCREATE INDEX j ON outbox (a);" + down, "CREATE INDEX without CONCURRENTLY keeps the writers of outbox waiting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []string
			if test.finding != "" {
				want = []string{"00001_x.sql: " + test.finding}
			}
			require.Equal(t, want, lint(t, fstest.MapFS{"00001_x.sql": {Data: []byte(test.file)}}))
		})
	}
}

var (
	ignored     = regexp.MustCompile(`(?s)\$(\w*)\$.*?\$\w*\$|'(?:[^']|'')*'|--[^\n]*`) // bodies, texts, comments
	spaces      = regexp.MustCompile(`\s+`)
	createTable = regexp.MustCompile(`^CREATE TABLE (?:IF NOT EXISTS )?([\w.]+)`)
	createIndex = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(IF NOT EXISTS )?(\w+) ON (?:ONLY )?([\w.]+)`)
	alterTable  = regexp.MustCompile(`^ALTER TABLE (?:IF EXISTS )?(?:ONLY )?([\w.]+) (.*)`)
	setTimeout  = regexp.MustCompile(`^SET (?:SESSION )?LOCK_TIMEOUT `)
	setSession  = regexp.MustCompile(`^SET (?:SESSION )?\w+ (?:=|TO) `)
	setLocal    = regexp.MustCompile(`^SET LOCAL `)
	// A default of now() is one value for all rows. These are not.
	volatile = regexp.MustCompile(`DEFAULT .*(?:GEN_RANDOM_UUID|CLOCK_TIMESTAMP|RANDOM|NEXTVAL|TIMEOFDAY) ?\(`)
)

// alterations are what ALTER TABLE does to a table that has rows.
var alterations = []struct {
	unsafe  func(clause string) bool
	finding string
}{
	{func(c string) bool {
		return isColumn(c) && strings.Contains(c, " NOT NULL") && !strings.Contains(c, " DEFAULT ") && !strings.Contains(c, " GENERATED ")
	}, "ADD COLUMN with NOT NULL and without DEFAULT fails on rows of @"},
	{func(c string) bool { return isColumn(c) && volatile.MatchString(c) }, "a DEFAULT that differs per row rewrites @ under a lock"},
	{func(c string) bool { return strings.HasPrefix(c, "ALTER ") && strings.HasSuffix(c, " SET NOT NULL") }, "SET NOT NULL reads @ under a lock"},
	{func(c string) bool {
		return regexp.MustCompile(`^ALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE `).MatchString(c)
	}, "a change of type may rewrite @ under a lock"},
	{func(c string) bool {
		return regexp.MustCompile(`^ADD (?:CONSTRAINT \w+ )?(?:CHECK|FOREIGN KEY)\b`).MatchString(c) && !strings.HasSuffix(c, " NOT VALID")
	}, "a constraint without NOT VALID reads @ under a lock"},
	{func(c string) bool {
		return regexp.MustCompile(`^ADD (?:CONSTRAINT \w+ )?(?:UNIQUE|PRIMARY KEY)\b`).MatchString(c) && !strings.Contains(c, " USING INDEX ")
	}, "UNIQUE or PRIMARY KEY without USING INDEX builds an index of @ under a lock"},
}

func isColumn(clause string) bool {
	return regexp.MustCompile(`^ADD `).MatchString(clause) &&
		!regexp.MustCompile(`^ADD (?:CONSTRAINT|CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE)\b`).MatchString(clause)
}

// lint returns what would fail, block or mislead on tables that have rows.
func lint(t *testing.T, files fs.FS) (findings []string) {
	t.Helper()
	names, err := fs.Glob(files, "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		require.NoError(t, err)
		for _, finding := range lintFile(string(text)) {
			findings = append(findings, name+": "+finding)
		}
	}
	return findings
}

func lintFile(text string) (findings []string) {
	find := func(parts ...string) { findings = append(findings, strings.Join(parts, "")) }
	head, rest, _ := strings.Cut(text, "-- +goose Up")
	up, down, _ := strings.Cut(rest, "-- +goose Down")
	if !strings.Contains(head, "-- Locks: ") {
		find("no line -- Locks: in the header")
	}
	if len(statements(down)) == 0 {
		find("no Down")
	}
	inTransaction := !strings.Contains(text, "-- +goose NO TRANSACTION")
	all := statements(up)
	var fresh []string          // tables that this file makes
	locked := map[string]bool{} // tables that NOT VALID keeps locked until the file's transaction ends
	for i, statement := range all {
		before, after := all[:i], all[i+1:]
		switch {
		case !inTransaction && setLocal.MatchString(statement):
			find("SET LOCAL does nothing with NO TRANSACTION")
		case inTransaction && setSession.MatchString(statement) && !strings.Contains(up, "CONCURRENTLY"):
			find("SET outlives the transaction: write SET LOCAL")
		}
		if m := createTable.FindStringSubmatch(statement); m != nil {
			fresh = append(fresh, table(m[1]))
		}
		if m := createIndex.FindStringSubmatch(statement); m != nil && !slices.Contains(fresh, table(m[4])) {
			index := strings.ToLower(m[3])
			switch {
			case m[1] == "":
				find("CREATE INDEX without CONCURRENTLY keeps the writers of ", table(m[4]), " waiting")
			case inTransaction:
				find("CONCURRENTLY needs NO TRANSACTION")
			case m[2] != "":
				find("IF NOT EXISTS takes an INVALID index for made")
			case !slices.Contains(before, "DROP INDEX CONCURRENTLY IF EXISTS "+m[3]):
				find("CREATE INDEX CONCURRENTLY ", index, " comes without DROP INDEX CONCURRENTLY IF EXISTS ", index, " before it")
			case !slices.ContainsFunc(before, setTimeout.MatchString) || !slices.Contains(after, "RESET LOCK_TIMEOUT"):
				find("CONCURRENTLY needs SET lock_timeout before it and RESET lock_timeout after it")
			}
		}
		if m := alterTable.FindStringSubmatch(statement); m != nil && !slices.Contains(fresh, table(m[1])) {
			for _, clause := range clauses(m[2]) {
				locked[table(m[1])] = locked[table(m[1])] || strings.HasSuffix(clause, " NOT VALID")
				if inTransaction && locked[table(m[1])] && strings.HasPrefix(clause, "VALIDATE ") {
					find("VALIDATE reads ", table(m[1]), " under the lock of NOT VALID: put it in a file of its own")
				}
				for _, a := range alterations {
					if a.unsafe(clause) {
						find(strings.ReplaceAll(a.finding, "@", table(m[1])))
					}
				}
			}
		}
	}
	return findings
}

func table(name string) string { return strings.TrimPrefix(strings.ToLower(name), "public.") }

// statements returns the statements in capitals and on one line, without comments, texts and function bodies.
func statements(text string) (all []string) {
	for statement := range strings.SplitSeq(ignored.ReplaceAllString(text, " "), ";") {
		if s := strings.TrimSpace(spaces.ReplaceAllString(statement, " ")); s != "" {
			all = append(all, strings.ToUpper(s))
		}
	}
	return all
}

// clauses splits at the commas that are outside of brackets.
func clauses(text string) (all []string) {
	depth, start := 0, 0
	for i, c := range text + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			all = append(all, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	return all
}
