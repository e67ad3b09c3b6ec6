package inbox_test

import (
	"fmt"
	"os"

	"rds-outbox-demo/contracts/eventtypes"
	"rds-outbox-demo/inbox"
)

// A message of the subscriber's queue becomes the Go type of its event type. What follows is a transaction with inbox.Once, as in
// handlers/carstats.
func ExampleParseEvent() {
	message, err := os.ReadFile("../docs/record-format/6-target.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	event, err := inbox.ParseEvent(message)
	if err != nil {
		fmt.Println(err) // return it, so that the message is delivered again and at last parked
		return
	}
	data, err := eventtypes.Parse(event.Type, event.Data)
	if err != nil {
		fmt.Println(err)
		return
	}
	switch car := data.(type) {
	case eventtypes.CarCreated:
		fmt.Println("created:", car.Make, car.Model, car.Year)
	case eventtypes.CarUpdated:
		fmt.Println("changed:", car.CarID, "at", car.UpdatedAt)
	case eventtypes.CarDeleted:
		fmt.Println("deleted:", car.CarID, "at", car.DeletedAt)
	}
	// Output: created: Citroën Méhari 2023
}
