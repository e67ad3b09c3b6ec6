package migrate

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// InvalidIndexError names indexes that every write keeps up to date and no query uses. A CREATE INDEX CONCURRENTLY that ended early
// leaves its index so, and IF NOT EXISTS then takes the index for made.
type InvalidIndexError struct{ Indexes []string } // with their schemas, quoted as in SQL

func (e *InvalidIndexError) Error() string {
	return fmt.Sprintf("INVALID indexes: %s. An interrupted CREATE INDEX CONCURRENTLY leaves such an index, and no query uses it. "+
		"Drop each with DROP INDEX CONCURRENTLY, and make it again by hand or with a new migration (docs/make-it-yours.md, tables with rows)",
		strings.Join(e.Indexes, ", "))
}

// checkIndexes returns an *InvalidIndexError if the database has one. The index of a partitioned table is not looked at, because
// it is invalid until each partition has one. Neither is an index that somebody is building.
func checkIndexes(ctx context.Context, db *sql.DB) error {
	const invalid = `
		SELECT format('%I.%I', nspname, relname)
		FROM pg_catalog.pg_index JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
		WHERE NOT indisvalid AND relkind = 'i' AND nspname NOT LIKE 'pg\_%'
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index WHERE index_relid = indexrelid)
		ORDER BY 1`
	rows, err := db.QueryContext(ctx, invalid)
	if err != nil {
		return fmt.Errorf("looking for invalid indexes: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var found InvalidIndexError
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("looking for invalid indexes: %w", err)
		}
		found.Indexes = append(found.Indexes, name)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("looking for invalid indexes: %w", err)
	}
	if found.Indexes != nil {
		return &found
	}
	return nil
}
