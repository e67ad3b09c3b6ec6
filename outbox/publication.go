package outbox

import (
	"context"
	"fmt"

	"rds-outbox-demo/dbgen"
)

// Publication is the publication of table outbox that migration 00003 makes.
const Publication = "outbox_publication"

// Look is the result of one look at table outbox and its publication. It holds only for the moment
// of the look. Anybody with the right may change either at any time, and an insert that is not
// published leaves no trace in the WAL that a relay could see.
type Look struct {
	// Problem says why inserts into public.outbox may not be published, and is "" when every insert is. Remedy says how to mend it.
	Problem, Remedy string
	// RelationID is the table's OID, which the publication follows when the table is renamed.
	RelationID uint32
	// Identity changes when the publication is changed, or table outbox becomes another table. When it differs between two looks, inserts
	// may have been missed between them, although both looks found no problem.
	Identity string
	// Replaced is the Identity before table outbox was partitioned (migrate.Partition), if nothing
	// has changed Identity since, and "" otherwise. Between the two every insert was published.
	Replaced string
	// Changing reports whether an open transaction changes the table or the publication. The change
	// may count as committed in the WAL already, so this look proves nothing.
	Changing bool
}

// LookAtPublication finds out whether every insert into public.outbox is published. The error is PostgreSQL's.
func LookAtPublication(ctx context.Context, db dbgen.DBTX) (Look, error) {
	facts, err := dbgen.New(db).PublicationLook(ctx, Publication)
	if err != nil {
		return Look{}, fmt.Errorf("looking at publication %s: %w", Publication, err)
	}
	look := Look{RelationID: uint32(facts.RelationID), Identity: facts.Identity, Replaced: facts.Replaced, Changing: facts.Changing}
	if why, remedy := judge(facts); why != "" {
		look.Problem = fmt.Sprintf("publication %s does not publish every insert into public.outbox (%s)", Publication, why)
		look.Remedy = remedy
	}
	return look, nil
}

// judge returns why an insert may not be published and what mends it, or "".
func judge(facts dbgen.PublicationLookRow) (why, remedy string) {
	const alter = "ALTER PUBLICATION " + Publication
	switch {
	case facts.RelationID == 0:
		return "there is no such table",
			"run the migrations (make migrate), or give the table its name and schema back: events in a table of another name are not published"
	case !facts.Logged:
		return "the table or a partition of it is not logged", "ALTER TABLE public.outbox SET LOGGED, and so for each partition; detach foreign tables"
	case facts.IsPartition:
		// The changes may carry the name of the other table.
		return "the table is a partition of another", "detach it"
	case facts.Inherited:
		// Their rows are read with the table's, but the changes carry other names.
		return "other tables inherit from it", "ALTER TABLE ... NO INHERIT public.outbox for each of them, and move its rows into public.outbox"
	case !facts.Published:
		return "there is no such publication",
			"run the migrations (make migrate); if it was dropped after them, CREATE PUBLICATION " + Publication + " FOR TABLE public.outbox WITH (publish = 'insert')"
	case !facts.Member:
		return "the table is not part of it", "run the migrations (make migrate); if it was taken out after them, " + alter + " ADD TABLE public.outbox"
	case !facts.Inserts:
		return "it leaves inserts out", "run the migrations (make migrate); if it was changed after them, " + alter + " SET (publish = 'insert')"
	case facts.Filtered:
		return "it has a row filter", "run the migrations (make migrate); if it was changed after them, " + alter + " SET TABLE public.outbox"
	case facts.ColumnList:
		return "it has a column list", alter + " SET TABLE public.outbox"
	case facts.Partitioned && !facts.ViaRoot:
		// The changes would carry the names of the partitions.
		return "the table is partitioned", alter + " SET (publish_via_partition_root = true)"
	}
	return "", ""
}
