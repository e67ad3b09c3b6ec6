// Package statements is what lab/bench writes of the entity without the API, as the API does. It is not in package domain, because the judge
// reads that and shares no code with the path.
package statements

import (
	"context"
	"time"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
)

// Values are the variables of Parameters for pgbench.
var Values = map[string]string{"make": "Toyota", "model": "Camry", "year": "2023", "color": "Blue", "created": "2026-01-02 03:04:05.678901Z"}

// Parameters are those of dbgen.CarInsert after the id, as variables of pgbench.
var Parameters = []string{":make", ":model", ":year", ":color", ":created"}

// EventData has the size of what POST writes.
const EventData = `{"carId":"019b7ce5-0d4e-7d38-9c2b-6f1c5a0b7e11","make":"Toyota","model":"Camry","year":2023,"color":"Blue",` +
	`"createdAt":"2026-01-02T03:04:05.678901Z"}`

// Insert writes an entity as POST does.
func Insert(ctx context.Context, queries *dbgen.Queries, id uuid.UUID, at time.Time) error {
	color := "Blue"
	return queries.CarInsert(ctx, dbgen.CarInsertParams{ID: id, Make: "Toyota", Model: "Camry", Year: 2023, Color: &color, CreatedAt: at})
}
