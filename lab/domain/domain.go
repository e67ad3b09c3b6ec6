// Package domain is what the lab knows of the entity whose events travel the path. A car is the example. A service with another entity
// changes this package, and the demo, the load of chaos, the benchmarks, the judge and the live view send, change, judge and count that.
//
// It shares no code with the path, because lab/judge reads it.
package domain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// The entity in the API and in its events.
const (
	Path          = "/cars" // POST creates one, PATCH of Path/{id} changes it, DELETE removes it
	AggregateType = "Car"
	Created       = "CarCreated"
	Updated       = "CarUpdated"
	Deleted       = "CarDeleted"
)

// The entity in the database.
const (
	// Rows reads every entity. Its state is the event data that its newest event has, without the time of the change.
	Rows = `SELECT id, version, jsonb_build_object(
		'carId', id, 'make', make, 'model', model, 'year', year, 'color', color, 'createdAt', created_at) AS state FROM cars`
	// Insert writes an entity with id $1 at version $2, without an event.
	Insert = "INSERT INTO cars (id, make, model, year, version) VALUES ($1, 'Toyota', 'Camry', 2023, $2)"
	// NextVersion changes the entity with id $1, and returns the version of its next event.
	NextVersion = "UPDATE cars SET version = version + 1 WHERE id = $1 RETURNING version"
	// Count is an expression, the number of entities.
	Count = "(SELECT count(*) FROM cars)"
	// Totals reads what the example subscriber has counted. Its kind is a Kind.
	Totals = "SELECT concat_ws(' ', make, year) AS kind, cars, changes FROM car_stats"
	// Counted is an expression, the number of entities that the example subscriber has counted.
	Counted = "(SELECT coalesce(sum(cars), 0)::bigint FROM car_stats)"
	// Miscount adds $1 to what the example subscriber has counted, of a kind that no entity has.
	Miscount = `INSERT INTO car_stats (make, year, cars, changes) VALUES ('None', 0, $1, 0)
		ON CONFLICT (make, year) DO UPDATE SET cars = car_stats.cars + excluded.cars`
)

// Alterations are what a migration may do to the columns of these tables while requests flow.
var Alterations = []string{
	"ALTER TABLE cars ALTER COLUMN color TYPE varchar(80)",
	"ALTER TABLE cars ALTER COLUMN year TYPE bigint",
	"ALTER TABLE cars ADD CONSTRAINT cars_year_check CHECK (year >= 1886)",
	"CREATE INDEX cars_make_idx ON cars (make)",
	"ALTER TABLE car_stats_car ALTER COLUMN make TYPE varchar(200)",
	"ALTER TABLE car_stats ALTER COLUMN year TYPE bigint",
}

// Tables are the entity's tables and those of the example subscriber's totals.
var Tables = []string{"cars", "car_stats", "car_stats_car"}

var kinds = [...][2]string{
	{"Toyota", "Camry"}, {"Citroën", "2CV"}, {"Fiat", "Panda <1> & \"co\""}, {"Volvo", "V60"}, {"Škoda", "Octavia"}, {"Renault", "Mégane"}, {"Mazda", "MX-5"},
}

var colors = [...]string{"Blue", "Grey", "Red", "White", "Green"}

// Create returns the body of a request that creates an entity. Another n makes another one, of another Kind if it is close. The token is a
// text that the entity then has, and its event data with it. It has up to 50 characters.
func Create(n int, token string) string {
	kind := kinds[n%len(kinds)]
	return fmt.Sprintf(`{"make":%q,"model":%q,"year":%d,"color":%q}`, kind[0], kind[1], 2023-n%25, token)
}

// Change returns the body of a request that changes an entity. n and token are as for Create.
func Change(n int, token string) string {
	return fmt.Sprintf(`{"year":%d,"color":%q}`, 2023-n%25, token)
}

// Sample returns a body as Create's, with the words that a person would use.
func Sample(n int) string { return Create(n, colors[n%len(colors)]) }

// Named returns a body as Create's of an entity whose Title has the name. The name has up to 100 characters.
func Named(name string) string {
	text, _ := json.Marshal(name)
	return fmt.Sprintf(`{"make":%s,"model":"Méhari","year":2023}`, text)
}

// Refused is a body of Create in which three fields are wrong.
var Refused = fmt.Sprintf(`{"make":%q,"model":" ","year":1700}`, strings.Repeat("x", 101))

// Title returns what a person knows the entity of the event data by, or "" for event data of another.
func Title(data []byte) string {
	var entity struct{ Make, Model string }
	_ = json.Unmarshal(data, &entity)
	return strings.TrimSpace(entity.Make + " " + entity.Model)
}

// Token returns the token of the request that caused an event, or "" for event data without one.
func Token(data []byte) string {
	var entity struct{ Color string }
	_ = json.Unmarshal(data, &entity)
	return entity.Color
}

// Kind returns under what the example subscriber counts an entity with these event data, or an error for data of no entity.
func Kind(data []byte) (string, error) {
	var entity struct {
		Make string
		Year int32
	}
	err := json.Unmarshal(data, &entity)
	return fmt.Sprintf("%s %d", entity.Make, entity.Year), err
}

// Field is a member of Create's body, for a form.
type Field struct {
	Name, Label string
	Numeric     bool // a JSON number
}

// Fields are the members of Create's body.
var Fields = []Field{{"make", "Make", false}, {"model", "Model", false}, {"year", "Year", true}, {"color", "Color", false}}

// Read returns the entity of an answer of the API, and its id. For an answer without an entity both are empty.
func Read(answer []byte) (entity json.RawMessage, id string) {
	var read struct{ Car json.RawMessage }
	var of struct{ ID string }
	_ = json.Unmarshal(answer, &read)
	_ = json.Unmarshal(read.Car, &of)
	return read.Car, of.ID
}

// Send sends a request to the API, or to another server of this machine, and returns the status and the body of the answer. The body is JSON
// or empty, and the answer is cut at 1 MiB. header are pairs of name and value. Without a whole answer the status is 0, and the change may
// have been made all the same.
func Send(ctx context.Context, client *http.Client, method, url, body string, header ...string) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(response.Body, 1<<20)); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	return response.StatusCode, answer, nil
}
