package awslocal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"
)

const (
	maxEntries    = 10
	maxEntryBytes = 1 << 20 // of all entries of a PutEvents together: 256 KiB until 2026-01-29, 1 MB since
	// A body far beyond the entries' limit never reaches the service. The answer is 413
	// (boto3#3411). The size from which the answer is 413 is unconfirmed.
	maxEventsBody = 4 << 20
	maxDetailType = 128 // characters

	maxDetailDepth = 1000
)

// events is the buses.
type events struct {
	conf    Config
	buses   map[string]bool
	journal *journal
	rules   *rules
}

var busName = regexp.MustCompile(`^[/.a-zA-Z0-9_-]{1,256}$`)

func openEvents(conf Config) (*events, error) {
	e := &events{conf: conf, buses: map[string]bool{"default": true}}
	for i, name := range conf.Buses {
		if !busName.MatchString(name) {
			return nil, fmt.Errorf("awslocal: Config.Buses[%d] %q: use 1 to 256 of a-z A-Z 0-9 . _ - /", i, name)
		}
		e.buses[name] = true
	}
	var err error
	if e.journal, err = openJournal(conf.Dir, conf.JournalBytes, conf.OnEvent); err != nil {
		return nil, err
	}
	return e, nil
}

type putEventsInput struct{ Entries []eventEntry }

type eventEntry struct {
	EventBusName *string
	Source       string
	DetailType   string
	Detail       string
	Time         *epochTime
	Resources    []string
	TraceHeader  *string
}

func (in *putEventsInput) entries() int { return len(in.Entries) }

func (in *putEventsInput) matches(text string) bool {
	for _, entry := range in.Entries {
		if strings.Contains(entry.Detail, text) {
			return true
		}
	}
	return false
}

type putEventsOutput struct {
	FailedEntryCount int
	Entries          []eventResult
}

type eventResult struct {
	EventId      string `json:",omitempty"`
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

// bytes is the entry's size as the EventBridge user guide counts it.
func (e *eventEntry) bytes() int {
	n := len(e.Source) + len(e.DetailType) + len(e.Detail)
	if e.Time != nil {
		n += 14
	}
	for _, r := range e.Resources {
		n += len(r)
	}
	return n
}

// putEvents accepts what the service accepts. Codes and texts are those that LocalStack recorded
// from AWS on 2024-12-06 (tests/aws/services/events/test_events.snapshot.json), also where the API
// reference says otherwise. A request none of whose entries is complete answers 200 with failed
// entries, for example. An entry for a bus that does not exist is answered with an EventId and goes
// nowhere (aws-cli#9186). The codes for a long DetailType, too deep a Detail and integers beyond
// int64 are unconfirmed.
func (e *events) putEvents(c *call, in *putEventsInput) (any, error) {
	if err := validated(in.violations()); err != nil {
		return nil, err
	}
	bytes := 0
	for i := range in.Entries {
		bytes += in.Entries[i].bytes()
	}
	if bytes > maxEntryBytes {
		return nil, clientError("ValidationException", "Total size of the entries in the request is over the limit.")
	}
	out := putEventsOutput{Entries: make([]eventResult, len(in.Entries))}
	var accepted []BusEvent
	var places []int // of the accepted, in the request
	now := e.conf.Now().UTC()
	for i := range in.Entries {
		entry := &in.Entries[i]
		if out.Entries[i] = e.check(c, entry); out.Entries[i].ErrorCode != "" {
			continue
		}
		event := entry.event(now)
		out.Entries[i].EventId = event.ID
		if !e.buses[event.Bus] {
			e.conf.Log.Warn("an event for an unknown bus was accepted and dropped, as AWS does", "bus", event.Bus)
			continue
		}
		accepted, places = append(accepted, event), append(places, i)
	}
	err := e.journal.add(accepted)
	if err == nil {
		err = e.rules.deliver(accepted)
	}
	if err != nil {
		e.conf.Log.Error("accepting events", "err", err)
		for _, i := range places {
			out.Entries[i] = eventResult{ErrorCode: "InternalFailure", ErrorMessage: "Internal failure."}
		}
	}
	for _, r := range out.Entries {
		if r.ErrorCode != "" {
			out.FailedEntryCount++
		}
	}
	return out, nil
}

func (in *putEventsInput) violations() []string {
	all := checkLength("entries", len(in.Entries), maxEntries)
	for i, entry := range in.Entries {
		if t := entry.TraceHeader; t != nil {
			all = append(all, checkLength(fmt.Sprintf("entries.%d.member.traceHeader", i+1), len(*t), 500)...)
		}
		if b := entry.EventBusName; b != nil && *b == "" {
			all = append(all, violation(fmt.Sprintf("entries.%d.member.eventBusName", i+1), atLeastOne))
		}
	}
	return all
}

func (e *events) check(c *call, entry *eventEntry) eventResult {
	if fault := c.onEntry(func(text string) bool { return strings.Contains(entry.Detail, text) }); fault != nil {
		return eventResult{ErrorCode: fault.Code, ErrorMessage: fault.apiError().message}
	}
	invalid := func(name, reason string) eventResult {
		return eventResult{ErrorCode: "InvalidArgument", ErrorMessage: "Parameter " + name + " is not valid. Reason: " + name + reason}
	}
	for _, required := range []struct{ name, value string }{
		{"Source", entry.Source}, {"DetailType", entry.DetailType}, {"Detail", entry.Detail},
	} {
		if required.value == "" {
			return invalid(required.name, " is a required argument.")
		}
	}
	if utf8.RuneCountInString(entry.DetailType) > maxDetailType {
		return invalid("DetailType", " is longer than 128 characters.")
	}
	if strings.HasPrefix(entry.Source, "aws.") {
		return eventResult{ErrorCode: "NotAuthorizedForSourceException", ErrorMessage: "Not authorized for the source."}
	}
	if !validDetail(entry.Detail) {
		return eventResult{ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed."}
	}
	return eventResult{}
}

// validDetail reports whether EventBridge takes the Detail, which must be a JSON object, at most
// 1,000 levels deep, with integers within int64.
func validDetail(detail string) bool {
	if !json.Valid([]byte(detail)) || !strings.HasPrefix(strings.TrimLeft(detail, " \t\r\n"), "{") {
		return false
	}
	decoder := json.NewDecoder(strings.NewReader(detail))
	decoder.UseNumber()
	for depth := 0; depth <= maxDetailDepth; {
		token, err := decoder.Token()
		if err != nil {
			return errors.Is(err, io.EOF)
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
		case json.Number:
			if _, err := token.Int64(); err != nil && !strings.ContainsAny(token.String(), ".eE") {
				return false
			}
		}
	}
	return false
}

func (e *eventEntry) event(now time.Time) BusEvent {
	event := BusEvent{
		ID: uuid.NewString(), Bus: bus(aws.ToString(e.EventBusName)), Accepted: now, Source: e.Source, DetailType: e.DetailType, Time: now,
		Resources: e.Resources, TraceHeader: aws.ToString(e.TraceHeader), Detail: []byte(e.Detail),
	}
	if e.Time != nil {
		event.Time = e.Time.Time
	}
	return event
}

const busARN = "arn:aws:events:" + Region + ":" + Account + ":event-bus/"

// bus returns the name that a name or an ARN gives, or the default bus's.
func bus(nameOrARN string) string { return cmp.Or(strings.TrimPrefix(nameOrARN, busARN), "default") }

type describeEventBusInput struct{ Name string }

func (e *events) describeEventBus(_ *call, in *describeEventBusInput) (any, error) {
	name := bus(in.Name)
	if !e.buses[name] {
		return nil, clientError("ResourceNotFoundException", "Event bus "+name+" does not exist.")
	}
	return map[string]string{"Name": name, "Arn": busARN + name}, nil
}
