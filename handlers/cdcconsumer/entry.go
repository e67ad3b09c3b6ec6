package cdcconsumer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"rds-outbox-demo/outbox"
)

// detail is what subscribers get. All of it comes from the row, so that every delivery of one event is the same, byte for byte.
type detail struct {
	AggregateID      string          `json:"aggregateId"`
	AggregateType    string          `json:"aggregateType"`
	AggregateVersion int64           `json:"aggregateVersion"`
	EventID          string          `json:"eventId"`
	EventData        json.RawMessage `json:"eventData"`
	Timestamp        string          `json:"timestamp"`
	Traceparent      string          `json:"traceparent,omitempty"`
}

// newEntry is the contract between the outbox and the bus (⑥). A replayed event is the same but for its Resources, so that a
// subscriber can tell it without looking for duplicates, and a rule can leave it out.
func newEntry(bus string, record outbox.Record) (types.PutEventsRequestEntry, error) {
	row := record.Row
	d := detail{
		AggregateID:      row.AggregateID,
		AggregateType:    row.AggregateType,
		AggregateVersion: row.AggregateVersion,
		EventID:          row.ID.String(),
		EventData:        row.EventData,
		Timestamp:        outbox.FormatTime(row.CreatedAt),
	}
	entry := types.PutEventsRequestEntry{
		EventBusName: aws.String(bus),
		Source:       aws.String("outbox." + strings.ToLower(row.AggregateType)),
		DetailType:   aws.String(row.EventType),
		Time:         aws.Time(row.CreatedAt),
	}
	if record.Replay != "" {
		entry.Resources = []string{"replay/" + record.Replay}
	}
	if row.Traceparent != nil && outbox.ValidTraceparent(*row.Traceparent) {
		d.Traceparent = *row.Traceparent
		entry.TraceHeader = aws.String(traceHeader(d.Traceparent))
	}
	// json.Marshal would write < > & of the payload as \u003c \u003e \u0026.
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d); err != nil {
		return types.PutEventsRequestEntry{}, fmt.Errorf("encoding the detail of event %s: %w", d.EventID, err)
	}
	entry.Detail = aws.String(strings.TrimSuffix(buf.String(), "\n"))
	return entry, nil
}

// traceHeader writes a valid traceparent, 00-<32 hex>-<16 hex>-<flags>, as the X-Ray header
// Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=0|1.
func traceHeader(traceparent string) string {
	sampled := "0"
	// The last hex digit is odd when the lowest flag, sampled, is set.
	if strings.ContainsRune("13579bdf", rune(traceparent[54])) {
		sampled = "1"
	}
	return "Root=1-" + traceparent[3:11] + "-" + traceparent[11:35] + ";Parent=" + traceparent[36:52] + ";Sampled=" + sampled
}

// entrySize is how EventBridge counts an entry: 14 bytes for a time, and the UTF-8 bytes of source, detail type, detail and
// resources (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html).
func entrySize(entry types.PutEventsRequestEntry) int {
	size := 14 + len(*entry.Source) + len(*entry.DetailType) + len(*entry.Detail)
	for _, resource := range entry.Resources {
		size += len(resource)
	}
	return size
}
