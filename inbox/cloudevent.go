package inbox

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// CloudEvent is an event of the path in the terms of CloudEvents 1.0. encoding/json makes the structured mode of it, whose content type is
// application/cloudevents+json. docs/adr/0020 says why each attribute is what it is.
type CloudEvent struct {
	SpecVersion     string          `json:"specversion"` // 1.0
	ID              string          `json:"id"`          // of the event, the same in every delivery
	Source          string          `json:"source"`      // as on the bus, such as outbox.car
	Type            string          `json:"type"`        // the detail-type
	Subject         string          `json:"subject"`     // id of the aggregate
	Time            time.Time       `json:"time"`        // UTC
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"` // eventData, a JSON object

	// Extensions. The version is a string, because an integer of CloudEvents has 32 bits.
	AggregateType    string `json:"aggregatetype"`
	AggregateVersion string `json:"aggregateversion"`
	Traceparent      string `json:"traceparent,omitempty"` // W3C
	Replay           string `json:"replay,omitempty"`      // id of the replay that sent it
}

// ParseCloudEvent reads an event of the path from EventBridge's envelope, as ParseEvent does and with the same errors.
func ParseCloudEvent(envelope []byte) (CloudEvent, error) {
	e, err := ParseEvent(envelope)
	if err != nil {
		return CloudEvent{}, err
	}
	return CloudEvent{
		SpecVersion: "1.0", ID: e.ID.String(), Source: "outbox." + strings.ToLower(e.AggregateType), Type: e.Type, Subject: e.AggregateID,
		Time: e.Timestamp, DataContentType: "application/json", Data: e.Data,
		AggregateType: e.AggregateType, AggregateVersion: strconv.FormatInt(e.Version, 10), Traceparent: e.Traceparent, Replay: e.Replay,
	}, nil
}
