package awslocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// insight is a query of Logs Insights in the few shapes that are read here:
//
//	fields <field> [as <name>], coalesce(<field>, <field>) as <name>, ...
//	  | filter <field> like /<regexp>/ | filter <field> like "<text>" | sort @timestamp desc
//
// There is one fields and any number of filters. The order is the same without sort. A field is
// @timestamp, @ingestionTime, @message, or a path into the event's JSON, in backquotes where it has
// other characters than letters, digits, dots and underscores.
type insight struct {
	columns []column
	filters []logFilter
}

type column struct {
	name   string
	fields []string // the first that the event has
}

type logFilter struct {
	field   string
	pattern *regexp.Regexp
}

const fieldText = "(@?[A-Za-z0-9_.]+|`[^`]+`)"

var (
	columnText = regexp.MustCompile(`^(?:` + fieldText + `|coalesce\(` + fieldText + `, ?` + fieldText + `\))(?: as ([A-Za-z][A-Za-z0-9_]*))?$`)
	filterText = regexp.MustCompile(`^filter ` + fieldText + ` like (?:/([^/]+)/|"([^"\\]+)")$`)
)

func parseInsight(text string) (q insight, err error) {
	commands := strings.Split(text, "|")
	list, ok := strings.CutPrefix(strings.TrimSpace(commands[0]), "fields ")
	if !ok {
		return q, errors.New("unexpected symbol: this listener reads fields first, then filters")
	}
	for _, item := range splitColumns(list) {
		m := columnText.FindStringSubmatch(strings.TrimSpace(item))
		if m == nil {
			return q, fmt.Errorf("unexpected symbol in %q", item)
		}
		c := column{name: m[4]}
		for _, field := range m[1:4] {
			if field != "" {
				c.fields = append(c.fields, strings.Trim(field, "`"))
			}
		}
		if c.name == "" && len(c.fields) > 1 {
			return q, fmt.Errorf("%q has no name", item)
		} else if c.name == "" {
			c.name = c.fields[0]
		}
		q.columns = append(q.columns, c)
	}
	for _, command := range commands[1:] {
		if strings.TrimSpace(command) == "sort @timestamp desc" {
			continue
		}
		m := filterText.FindStringSubmatch(strings.TrimSpace(command))
		if m == nil {
			return q, fmt.Errorf("unexpected symbol in %q", command)
		}
		expression := m[2]
		if expression == "" {
			expression = regexp.QuoteMeta(m[3])
		}
		pattern, err := regexp.Compile(expression)
		if err != nil {
			return q, err
		}
		q.filters = append(q.filters, logFilter{strings.Trim(m[1], "`"), pattern})
	}
	return q, nil
}

// splitColumns splits at the commas outside parentheses.
func splitColumns(list string) (items []string) {
	depth, begin := 0, 0
	for i, c := range list {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			items, begin = append(items, list[begin:i]), i+1
		}
	}
	return append(items, list[begin:])
}

// logEvent is one event of the bus as its log group has it.
type logEvent struct {
	BusEvent
	at     time.Time         // in milliseconds
	fields map[string]string // all discovered fields, nil before the first use
}

// insightsTime is how Logs Insights writes a timestamp.
const insightsTime = "2006-01-02 15:04:05.000"

func (e *logEvent) value(field string) (string, bool) {
	switch field {
	case "@timestamp", "@ingestionTime":
		return e.at.UTC().Format(insightsTime), true
	case "@message":
		return logMessage(e.BusEvent), true
	case "id":
		return e.ID, true
	case "source":
		return e.Source, true
	}
	if e.fields == nil {
		e.fields = discover(logMessage(e.BusEvent))
	}
	value, ok := e.fields[field]
	return value, ok
}

func (q insight) matches(e *logEvent) bool {
	for _, f := range q.filters {
		if value, ok := e.value(f.field); !ok || !f.pattern.MatchString(value) {
			return false
		}
	}
	return true
}

// row leaves out what the event does not have, as the service does.
func (q insight) row(e *logEvent) []resultField {
	var row []resultField
	for _, c := range q.columns {
		for _, field := range c.fields {
			if value, ok := e.value(field); ok {
				row = append(row, resultField{c.name, value})
				break
			}
		}
	}
	return append(row, resultField{"@ptr", strconv.FormatInt(e.at.UnixNano(), 36)})
}

// logMessage returns the event as EventBridge hands it to a target (EventBridge user guide, "AWS
// service event metadata"). Its time has whole seconds.
func logMessage(e BusEvent) string {
	resources := e.Resources
	if resources == nil {
		resources = []string{}
	}
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(struct { // what came out of JSON goes into JSON
		Version    string          `json:"version"`
		ID         string          `json:"id"`
		DetailType string          `json:"detail-type"`
		Source     string          `json:"source"`
		Account    string          `json:"account"`
		Time       string          `json:"time"`
		Region     string          `json:"region"`
		Resources  []string        `json:"resources"`
		Detail     json.RawMessage `json:"detail"`
	}{"0", e.ID, e.DetailType, e.Source, Account, e.Time.UTC().Format("2006-01-02T15:04:05Z"), Region, resources, e.Detail})
	return strings.TrimSuffix(buf.String(), "\n")
}

// maxDiscovered is how many fields of a JSON event Logs Insights finds by itself (CloudWatch Logs
// user guide, "Supported logs and discovered fields"). The guide does not say which ones it finds
// of more. Here it finds the first.
const maxDiscovered = 200

// discover makes the leaves of a JSON object fields, such as detail.eventId and resources.0.
func discover(message string) map[string]string {
	fields := map[string]string{}
	decoder := json.NewDecoder(strings.NewReader(message))
	decoder.UseNumber()
	err := walk(decoder, "", func(path string, value any) bool {
		fields[path] = fmt.Sprint(value)
		return len(fields) < maxDiscovered
	})
	if err != nil && !errors.Is(err, errEnough) {
		return map[string]string{} // not JSON: no fields
	}
	return fields
}

// errEnough ends a walk from inside.
var errEnough = errors.New("enough")

func ignoreEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// walk calls fn for every leaf of the next value but null, in the order of the text, until it returns false.
func walk(decoder *json.Decoder, path string, fn func(path string, value any) bool) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	below := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	switch token {
	case json.Delim('{'):
		for decoder.More() {
			name, err := decoder.Token()
			if err == nil {
				err = walk(decoder, below(name.(string)), fn)
			}
			if err != nil {
				return err
			}
		}
		_, err = decoder.Token()
	case json.Delim('['):
		for i := 0; decoder.More(); i++ {
			if err := walk(decoder, below(strconv.Itoa(i)), fn); err != nil {
				return err
			}
		}
		_, err = decoder.Token()
	case nil:
	default:
		if !fn(path, token) {
			return errEnough
		}
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
