package outboxctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"
)

// busEntry is one event on the bus (⑥), as the bus's log has it.
type busEntry struct {
	EventID          uuid.UUID `json:"eventId"`
	AggregateType    string    `json:"aggregateType"`
	AggregateID      string    `json:"aggregateId"`
	AggregateVersion int64     `json:"aggregateVersion"`
	CreatedAt        time.Time `json:"createdAt"`
	// BusID is EventBridge's id, a new one for every accepted entry. The log may have one twice: EventBridge delivers to its
	// targets at least once.
	BusID   string    `json:"busId"`
	Arrived time.Time `json:"arrivedAt"` // at the log, in milliseconds
	// Replay is replay/<id> of outboxctl's replay, or the name of a replay of EventBridge's archive.
	Replay string `json:"replay,omitempty"`
}

// busLog reads the log group of the bus with Logs Insights.
type busLog struct {
	client *cloudwatchlogs.Client
	group  string
	limit  int32 // rows of one answer
}

// maxRows is the most rows that one GetQueryResults returns (API reference, also in cloudwatchlogs v1.92.0). The
// further pages, up to 100,000 rows, are not read, because slices are needed in any case.
const maxRows = 10_000

func newBusLog(s *Setup) busLog {
	return busLog{client: cloudwatchlogs.NewFromConfig(s.AWS), group: s.BusLogGroup, limit: maxRows}
}

// columns of the queries. Logs Insights finds the first 200 fields of a JSON event by itself (CloudWatch Logs user
// guide, "Supported logs and discovered fields"). With a large payload some of detail's fields may not be among them.
// Then coalesce, "the first non-null value from the list", returns the whole message, and this program reads it.
//
// The arrival is @ingestionTime, "when CloudWatch Logs received the log event" (same page). No document says whether
// EventBridge's @timestamp is the event's own time or that of the delivery. It only decides which slice an entry is in.
const columns = "fields @timestamp as at, @ingestionTime as arrived, id as busId, `resources.0` as resource, `replay-name` as replayName, " +
	"coalesce(`detail.eventId`, @message) as eventId, " +
	"coalesce(`detail.aggregateType`, @message) as aggregateType, " +
	"coalesce(`detail.aggregateId`, @message) as aggregateId, " +
	"coalesce(`detail.aggregateVersion`, @message) as aggregateVersion, " +
	"coalesce(`detail.timestamp`, @message) as createdAt" +
	" | filter source like /^outbox[.]/"

// newestFirst makes a cut answer useful, because the answer has every entry that is newer than its last row.
const newestFirst = " | sort @timestamp desc"

// slice is a part of the log. Both ends belong to it (API reference of StartQuery, inclusive, in seconds). Neighbours
// share a second, because the reference does not say what "inclusive" means for its milliseconds.
type slice struct {
	from, to int64
	prefix   string // of EventBridge's id, a random UUID
}

// split halves the time. A second is split by the first hex digits of EventBridge's ids.
func (s slice) split() []slice {
	if s.to-s.from > 1 {
		middle := s.from + (s.to-s.from)/2
		return []slice{{s.from, middle, s.prefix}, {middle, s.to, s.prefix}}
	}
	var parts []slice
	for _, digit := range "0123456789abcdef" {
		parts = append(parts, slice{s.from, s.to, s.prefix + string(digit)})
	}
	return parts
}

// maxPrefix ends the splitting where an answer is cut for another reason than its size. 16^4 parts of a second hold 600 million entries.
const maxPrefix = 4

// entries calls fn for all entries between the two times, in no order. An entry at the edge of a slice, or one that EventBridge
// delivered twice, comes more than once, with the same BusID.
func (l busLog) entries(ctx context.Context, from, to time.Time, fn func(busEntry) error) error {
	return l.read(ctx, slice{from: from.Unix(), to: to.Unix() + 1}, "", fn)
}

// find returns the entries with this event id, each BusID once, the oldest first.
func (l busLog) find(ctx context.Context, from, to time.Time, id uuid.UUID) ([]busEntry, error) {
	found := []busEntry{}
	seen := map[string]bool{}
	// Search the message, not detail.eventId, because Logs Insights may not have discovered that field.
	err := l.read(ctx, slice{from: from.Unix(), to: to.Unix() + 1}, fmt.Sprintf(` | filter @message like "%s"`, id), func(e busEntry) error {
		if e.EventID == id && !seen[e.BusID+e.Replay] {
			found, seen[e.BusID+e.Replay] = append(found, e), true
		}
		return nil
	})
	slices.SortFunc(found, func(a, b busEntry) int { return cmp.Or(a.Arrived.Compare(b.Arrived), cmp.Compare(a.BusID, b.BusID)) })
	return found, err
}

func (l busLog) read(ctx context.Context, s slice, filters string, fn func(busEntry) error) error {
	wrap := func(err error) error {
		return fmt.Errorf("reading %s from %s to %s: %w", l.group, utc(s.from), utc(s.to), err)
	}
	rows, full, err := l.query(ctx, s, filters)
	if outsideGroup(err) {
		return nil // halved slices meet it
	} else if err != nil {
		return wrap(err)
	}
	for _, row := range rows {
		entry, ok, err := readEntry(row)
		if err != nil {
			return fmt.Errorf("reading an entry of %s: %w", l.group, err)
		}
		if !ok {
			continue
		}
		if err := fn(entry); err != nil {
			return err
		}
	}
	if !full {
		return nil
	}
	parts, err := s.rest(rows)
	if err != nil {
		return wrap(err)
	}
	for _, part := range parts {
		if err := l.read(ctx, part, filters, fn); err != nil {
			return err
		}
	}
	return nil
}

// rest are the parts of a slice that are still to be read behind a cut answer. The second of the last row is read again, to its end:
// more of it may have been cut.
func (s slice) rest(rows [][]types.ResultField) ([]slice, error) {
	last := s.to
	for _, row := range rows {
		for _, field := range row {
			if aws.ToString(field.Field) == "at" {
				at, err := parseInsightsTime(aws.ToString(field.Value))
				if err != nil {
					return nil, err
				}
				last = min(last, at.Unix())
			}
		}
	}
	if left := (slice{s.from, max(last, s.from) + 1, s.prefix}); left.to < s.to {
		if left.to-left.from > 1 {
			return left.split(), nil
		}
		return []slice{left}, nil
	}
	if s.to-s.from <= 1 && len(s.prefix) == maxPrefix {
		return nil, errors.New("the answer is cut, however small the question is")
	}
	return s.split(), nil
}

func utc(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// query runs one query to its end. full says that there is more than the answer has.
func (l busLog) query(ctx context.Context, s slice, filters string) (rows [][]types.ResultField, full bool, err error) {
	text := columns + filters
	if s.prefix != "" {
		text += " | filter id like /^" + s.prefix + "/"
	}
	text += newestFirst
	started, err := l.client.StartQuery(ctx, &cloudwatchlogs.StartQueryInput{
		LogGroupName: &l.group, StartTime: &s.from, EndTime: &s.to, QueryString: &text, Limit: &l.limit,
	})
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if ctx.Err() != nil { // it would go on, and count against the account's concurrent queries
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_, _ = l.client.StopQuery(stopping, &cloudwatchlogs.StopQueryInput{QueryId: started.QueryId})
		}
	}()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		results, err := l.client.GetQueryResults(ctx, &cloudwatchlogs.GetQueryResultsInput{QueryId: started.QueryId})
		if err != nil {
			return nil, false, err
		}
		switch results.Status {
		case types.QueryStatusComplete:
			matched := 0
			if results.Statistics != nil {
				matched = int(results.Statistics.RecordsMatched)
			}
			return results.Results, len(results.Results) >= int(l.limit) || matched > len(results.Results), nil
		case types.QueryStatusScheduled, types.QueryStatusRunning: // its rows so far are not all of them
		default:
			return nil, false, fmt.Errorf("the query ended as %s", results.Status)
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// reachesBackTo reports whether the log still has entries of that time. It asks the log, because only the log knows whether it has a
// retention, and since when it exists.
func (l busLog) reachesBackTo(ctx context.Context, at time.Time) (bool, error) {
	s := slice{from: at.Unix(), to: at.Unix() + 1}
	_, _, err := l.query(ctx, s, "")
	if outsideGroup(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("reading %s of %s: %w", l.group, utc(s.from), err)
	}
	return true, nil
}

// outsideGroup reports whether err answers a query that ends before the log group begins, or before its retention. The
// log has nothing there. A wrong query has the same code, so the text decides (seen in several repositories' code
// and tests: "Query's end date and time is either before the log groups creation time or exceeds the log groups log retention settings").
func outsideGroup(err error) bool {
	var apiErr smithy.APIError
	return errors.As(err, &apiErr) && apiErr.ErrorCode() == "MalformedQueryException" &&
		strings.Contains(apiErr.ErrorMessage(), "before the log groups creation time")
}

// envelope is what EventBridge hands to a target.
type envelope struct {
	Detail struct {
		EventID          string `json:"eventId"`
		AggregateType    string `json:"aggregateType"`
		AggregateID      string `json:"aggregateId"`
		AggregateVersion int64  `json:"aggregateVersion"`
		Timestamp        string `json:"timestamp"`
	} `json:"detail"`
}

// readEntry returns false for an entry that is not an event of an outbox, because others may use the bus, too.
func readEntry(row []types.ResultField) (busEntry, bool, error) {
	values := map[string]string{}
	var whole envelope
	for _, field := range row {
		value := aws.ToString(field.Value)
		values[aws.ToString(field.Field)] = value
		// An aggregate id may look like an object, too, but not like this one.
		if e := (envelope{}); strings.HasPrefix(value, "{") && json.Unmarshal([]byte(value), &e) == nil && e.Detail.EventID != "" {
			whole = e
		}
	}
	if d := whole.Detail; d.EventID != "" {
		values["eventId"], values["createdAt"] = d.EventID, d.Timestamp
		values["aggregateType"], values["aggregateId"] = d.AggregateType, d.AggregateID
		values["aggregateVersion"] = strconv.FormatInt(d.AggregateVersion, 10)
	}
	id, err := uuid.Parse(values["eventId"])
	if err != nil {
		return busEntry{}, false, nil //nolint:nilerr // not one of ours
	}
	entry := busEntry{
		EventID: id, AggregateType: values["aggregateType"], AggregateID: values["aggregateId"],
		BusID: values["busId"], Replay: values["replayName"],
	}
	if resource := values["resource"]; strings.HasPrefix(resource, "replay/") {
		entry.Replay = resource
	}
	var errs [3]error
	entry.AggregateVersion, errs[0] = strconv.ParseInt(values["aggregateVersion"], 10, 64)
	entry.CreatedAt, errs[1] = time.Parse(time.RFC3339, values["createdAt"])
	entry.Arrived, errs[2] = parseInsightsTime(values["arrived"])
	if err := errors.Join(errs[:]...); err != nil {
		return busEntry{}, false, fmt.Errorf("event %s, EventBridge id %s: %w", id, entry.BusID, err)
	}
	return entry, true, nil
}

// parseInsightsTime reads a timestamp as Logs Insights shows @timestamp, or milliseconds since 1970: which of the two @ingestionTime
// comes in is not documented.
func parseInsightsTime(text string) (time.Time, error) {
	if millis, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(millis).UTC(), nil
	}
	return time.Parse("2006-01-02 15:04:05.000", text)
}
