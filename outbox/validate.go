package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limits of table outbox (sql/migrations/00002_outbox.sql).
const (
	MaxTypeChars        = 100
	MaxAggregateIDChars = 255
	MaxDataBytes        = 60 << 10
)

// maxDataDepth leaves one level of EventBridge's 1,000 for the detail around the payload.
const maxDataDepth = 999

// validate refuses an event that could not travel the whole path. A committed row that the bus refuses is poison.
func (e Event) validate() error {
	switch {
	case e.ID == uuid.Nil:
		return &InvalidEventError{"id", "is missing: make one with uuid.NewV7"}
	case e.AggregateVersion < 1:
		return &InvalidEventError{"aggregate_version", fmt.Sprintf("is %d: versions count from 1", e.AggregateVersion)}
	case e.Traceparent != "" && !ValidTraceparent(e.Traceparent):
		return &InvalidEventError{"traceparent", "is not a W3C traceparent of version 00"}
	}
	if err := validateType("aggregate_type", e.AggregateType); err != nil {
		return err
	}
	if err := validateType("event_type", e.Type); err != nil {
		return err
	}
	if err := validateAggregateID(e.AggregateID); err != nil {
		return err
	}
	return validateData(e.Data)
}

func validateType(field, s string) error {
	switch {
	case s == "":
		return &InvalidEventError{field, "is empty"}
	case len(s) > MaxTypeChars:
		return &InvalidEventError{field, fmt.Sprintf("has %d characters: at most %d", len(s), MaxTypeChars)}
	case !validName(s):
		return &InvalidEventError{field, "must be a letter followed by letters, digits, '.', '_' or '-'"}
	}
	return nil
}

// validName reports whether s, which is not empty, matches ^[A-Za-z][A-Za-z0-9._-]*$. That is the pattern of the table's CHECKs. (As a
// regexp it took a quarter of Append's time.)
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		other := c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !letter && (i == 0 || !other) {
			return false
		}
	}
	return true
}

func validateAggregateID(s string) error {
	const field = "aggregate_id"
	switch {
	case s == "":
		return &InvalidEventError{field, "is empty"}
	case !utf8.ValidString(s):
		return &InvalidEventError{field, "is not valid UTF-8"}
	case TextFault(s) != "":
		return &InvalidEventError{field, "contains " + TextFault(s)}
	case !Visible(s):
		return &InvalidEventError{field, "has no visible character"}
	case utf8.RuneCountInString(s) > MaxAggregateIDChars:
		return &InvalidEventError{field, fmt.Sprintf("has %d characters: at most %d", utf8.RuneCountInString(s), MaxAggregateIDChars)}
	}
	return nil
}

func validateData(data json.RawMessage) error {
	invalid := func(format string, args ...any) error {
		return &InvalidEventError{"event_data", fmt.Sprintf(format, args...)}
	}
	data = bytes.TrimLeft(data, " \t\r\n")
	switch {
	case len(data) == 0 || data[0] != '{':
		return invalid("is not a JSON object")
	case len(data) > MaxDataBytes:
		return invalid("has %d bytes: at most %d", len(data), MaxDataBytes)
	case !utf8.Valid(data):
		return invalid("is not valid UTF-8")
	case !json.Valid(data):
		return invalid("is not valid JSON")
	}
	if fault := JSONFault(data); fault != "" {
		return invalid("contains %s", fault)
	}
	return validateTokens(data, invalid)
}

// validateTokens checks EventBridge's limits inside a detail, which are the depth and integers within int64. jsonb stores any number and
// spells it out, so 1e19 leaves the database as an integer beyond int64. json.Valid has passed, so outside of strings everything that
// begins as a number is one. (json.Decoder's tokens took 67 allocations for a car.)
func validateTokens(data []byte, invalid func(string, ...any) error) error {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++ // what is escaped ends no string
				}
			}
		case c == '{' || c == '[':
			if depth++; depth > maxDataDepth {
				return invalid("is nested deeper than %d levels", maxDataDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			number := data[i:]
			if end := bytes.IndexAny(number, ",]} \t\r\n"); end >= 0 {
				number = number[:end]
			}
			if !numberTravels(string(number)) {
				return invalid("contains a number outside int64 and float64: %.40s", number)
			}
			i += len(number) - 1
		}
	}
	return nil
}

// numberTravels reports whether n survives the path as a number. An integer (1e3 is one, too) must be within int64, any other number
// within float64.
func numberTravels(n string) bool {
	if _, err := strconv.ParseInt(n, 10, 64); err == nil {
		return true
	}
	f, err := strconv.ParseFloat(n, 64)
	mantissa, _, _ := strings.Cut(strings.ToLower(n), "e")
	if err != nil || f == 0 && strings.ContainsAny(mantissa, "123456789") {
		return false // too large, or so small that only zero would be left of it
	}
	if f > -(1<<63) && f < 1<<63 {
		return true
	}
	// It is beyond int64, where a float64 has no fraction. Only a number that is written with a fraction is not an integer.
	exact, ok := new(big.Rat).SetString(strings.Clone(n)) // without the copy, every n would move to the heap
	return ok && !exact.IsInt()
}
