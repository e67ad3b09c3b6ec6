package carapi

import (
	"time"

	"github.com/google/uuid"
)

// The events of a car, as subscribers know them. Members may be added; to rename, retype or remove one is a new event type.
// Times are RFC 3339 in UTC with up to 6 fraction digits.
const (
	aggregateCar   = "Car"
	typeCarCreated = "CarCreated"
	typeCarUpdated = "CarUpdated"
	typeCarDeleted = "CarDeleted"
)

// CarCreated is the eventData of event type CarCreated, the first of a car.
type CarCreated struct {
	CarID     uuid.UUID `json:"carId"`
	Make      string    `json:"make"`
	Model     string    `json:"model"`
	Year      int32     `json:"year"`
	Color     *string   `json:"color"` // null: nobody has said which
	CreatedAt time.Time `json:"createdAt"`
}

// CarUpdated is the eventData of event type CarUpdated: the whole car after the change.
type CarUpdated struct {
	CarID     uuid.UUID `json:"carId"`
	Make      string    `json:"make"`
	Model     string    `json:"model"`
	Year      int32     `json:"year"`
	Color     *string   `json:"color"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// CarDeleted is the eventData of event type CarDeleted, the last of a car: the car as it was. No other car ever gets its id.
type CarDeleted struct {
	CarID     uuid.UUID `json:"carId"`
	Make      string    `json:"make"`
	Model     string    `json:"model"`
	Year      int32     `json:"year"`
	Color     *string   `json:"color"`
	CreatedAt time.Time `json:"createdAt"`
	DeletedAt time.Time `json:"deletedAt"`
}
