package inbox_test

import (
	"fmt"
	"os"
	"time"

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
		fmt.Println("created:", car.CarID, "at", car.CreatedAt.Format(time.TimeOnly))
	case eventtypes.CarUpdated:
		fmt.Println("changed:", car.CarID, "at", car.UpdatedAt)
	case eventtypes.CarDeleted:
		fmt.Println("deleted:", car.CarID, "at", car.DeletedAt)
	}
	// Output: created: 0199fa3c-7b5e-7a01-9c3d-5e6f70819203 at 09:15:00
}
