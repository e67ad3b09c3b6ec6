package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
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

// SQS takes only characters of XML 1.0, and EventBridge may put an event into a subscriber's queue as it is
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html). Control characters are escaped in JSON.
const (
	notXML       = "\uFFFE\uFFFF"
	refusedBySQS = "contains U+FFFE or U+FFFF, which SQS refuses"
)

var typePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

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
	case !typePattern.MatchString(s):
		return &InvalidEventError{field, "must be a letter followed by letters, digits, '.', '_' or '-'"}
	}
	return nil
}

func validateAggregateID(s string) error {
	const field = "aggregate_id"
	switch {
	case s == "":
		return &InvalidEventError{field, "is empty"}
	case !utf8.ValidString(s):
		return &InvalidEventError{field, "is not valid UTF-8"}
	case strings.ContainsRune(s, 0):
		return &InvalidEventError{field, "contains U+0000, which PostgreSQL cannot store"}
	case strings.ContainsAny(s, notXML):
		return &InvalidEventError{field, refusedBySQS}
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
	if bytes.ContainsAny(data, notXML) {
		return invalid(refusedBySQS)
	}
	if reason := badEscape(data); reason != "" {
		return invalid("%s", reason)
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
	exact, ok := new(big.Rat).SetString(n)
	return ok && !exact.IsInt()
}

// badEscape finds the \u escapes that are valid JSON and that jsonb or SQS refuses. jsonb stores an escape as its character. json.Valid has passed, so a backslash is inside
// a string and an escape is complete.
func badEscape(data []byte) string {
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if data[i] != 'u' {
			continue
		}
		switch code := hex4(data[i+1:]); {
		case code == 0:
			return `contains \u0000, which PostgreSQL cannot store`
		case code == 0xFFFE || code == 0xFFFF:
			return refusedBySQS
		case code >= 0xDC00 && code <= 0xDFFF:
			return "contains half of a surrogate pair"
		case code >= 0xD800 && code <= 0xDBFF:
			rest := data[i+5:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return "contains half of a surrogate pair"
			}
			if low := hex4(rest[2:]); low < 0xDC00 || low > 0xDFFF {
				return "contains half of a surrogate pair"
			}
			i += 6
		}
		i += 4
	}
	return ""
}

func hex4(b []byte) uint64 {
	code, _ := strconv.ParseUint(string(b[:4]), 16, 32) // json.Valid has checked the four hex digits
	return code
}
