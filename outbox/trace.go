package outbox

import "strings"

// traceparentLen is 00-<trace id, 32 hex>-<parent id, 16 hex>-<flags, 2 hex>.
const traceparentLen = 55

// ValidTraceparent reports whether s is a version 00 traceparent with a trace id and a parent id that are not all zeros
// (https://www.w3.org/TR/trace-context/#traceparent-header).
func ValidTraceparent(s string) bool {
	if len(s) != traceparentLen || s[:3] != "00-" {
		return false
	}
	for i := 3; i < len(s); i++ {
		if i == 35 || i == 52 {
			if s[i] != '-' {
				return false
			}
		} else if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

// TraceID returns the 32 hex digits by which one request is found at every hop, or "" when s is no valid traceparent.
func TraceID(s string) string {
	if !ValidTraceparent(s) {
		return ""
	}
	return s[3:35]
}
