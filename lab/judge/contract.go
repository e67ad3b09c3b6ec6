package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rds-outbox-demo/lab/awslocal"
)

// Contradiction says how an entry on the bus differs from what its row calls for, or nothing.
func Contradiction(row Row, entry awslocal.BusEvent) string {
	want := map[string]any{
		"aggregateId": row.AggregateID, "aggregateType": row.AggregateType, "aggregateVersion": row.Version,
		"eventId": row.ID, "eventData": row.Data, "timestamp": timestamp(row.CreatedAt),
	}
	header := ""
	if row.Traceparent != nil {
		if header = traceHeader(*row.Traceparent); header != "" {
			want["traceparent"] = *row.Traceparent
		}
	}
	wantJSON, err := json.Marshal(want)
	// PutEvents carries milliseconds.
	wantTime, gotTime := row.CreatedAt.Truncate(time.Millisecond), entry.Time.Truncate(time.Millisecond)
	switch {
	case err != nil:
		return "the row's event_data is no JSON: " + err.Error()
	case entry.Source != "outbox."+strings.ToLower(row.AggregateType):
		return "source is " + entry.Source
	case entry.DetailType != row.EventType:
		return "detail-type is " + entry.DetailType
	case !gotTime.Equal(wantTime):
		return fmt.Sprintf("time is %v, the row's created_at %v", entry.Time.UTC(), row.CreatedAt.UTC())
	case !sameJSON(wantJSON, entry.Detail):
		return fmt.Sprintf("detail is %s, not %s", entry.Detail, wantJSON)
	case entry.TraceHeader != header:
		return fmt.Sprintf("trace header is %q, not %q", entry.TraceHeader, header)
	case len(entry.Resources) != 0:
		return fmt.Sprintf("resources are %q", entry.Resources)
	}
	return ""
}

// EntryText is everything that a subscriber sees of an entry, so that duplicates can be compared. The bus's own id and the time of
// acceptance are not part of it.
func EntryText(e awslocal.BusEvent) string {
	return strings.Join([]string{
		e.Source, e.DetailType, string(e.Detail), e.Time.UTC().Format(time.RFC3339Nano), e.TraceHeader, strings.Join(e.Resources, "\x01"),
	}, "\x00")
}

// copyText is EntryText of a copy. What a replay of ours has added is left out.
func (r *Round) copyText(e awslocal.BusEvent) string {
	if r.Replay != "" && slices.Equal(e.Resources, []string{"replay/" + r.Replay}) {
		e.Resources = nil
	}
	return EntryText(e)
}

// Describes reports whether the event data of a car carries the car that the API answered with. It has the same members, with id as carId.
// Only the event has the time of the change.
func Describes(eventData, car json.RawMessage) bool {
	var got, want map[string]any
	if json.Unmarshal(eventData, &got) != nil || json.Unmarshal(car, &want) != nil || want == nil {
		return false
	}
	want["carId"] = want["id"]
	delete(want, "id")
	delete(got, "updatedAt")
	delete(want, "updatedAt")
	return reflect.DeepEqual(got, want)
}

func timestamp(t time.Time) string {
	if t.Nanosecond() == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

var (
	traceparent = regexp.MustCompile(`^00-([0-9a-f]{8})([0-9a-f]{24})-([0-9a-f]{16})-([0-9a-f]{2})$`)
	zeros       = regexp.MustCompile(`^00-0{32}-|-0{16}-..$`)
)

// traceHeader returns X-Ray's form of a traceparent, or "" for an invalid one.
func traceHeader(parent string) string {
	m := traceparent.FindStringSubmatch(parent)
	if m == nil || zeros.MatchString(parent) {
		return ""
	}
	flags, err := strconv.ParseUint(m[4], 16, 8)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("Root=1-%s-%s;Parent=%s;Sampled=%d", m[1], m[2], m[3], flags&1)
}

func sameJSON(a, b []byte) bool {
	x, y := decode(a), decode(b)
	return x != nil && reflect.DeepEqual(x, y)
}

// decode returns nil for what is not JSON. Numbers stay texts, because float64 would forgive a changed digit.
func decode(data []byte) (v any) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if !json.Valid(data) || decoder.Decode(&v) != nil {
		return nil
	}
	return v
}
