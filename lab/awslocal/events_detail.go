package awslocal

import (
	"encoding/json"
	"strconv"
	"strings"
)

const maxDetailDepth = 1000

// validDetail reports whether EventBridge takes the Detail, which must be a JSON object, at most
// 1,000 levels deep, with integers within int64.
func validDetail(detail string) bool {
	if !json.Valid([]byte(detail)) || !strings.HasPrefix(strings.TrimLeft(detail, " \t\r\n"), "{") {
		return false
	}
	// The text is valid JSON, so a look at single bytes is enough from here on.
	depth := 0
	for i := 0; i < len(detail); i++ {
		switch c := detail[i]; {
		case c == '"':
			for i++; detail[i] != '"'; i++ {
				if detail[i] == '\\' {
					i++
				}
			}
		case c == '{' || c == '[':
			if depth++; depth > maxDetailDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || '0' <= c && c <= '9':
			end := i + 1
			for strings.IndexByte("0123456789+-.eE", detail[end]) >= 0 { // an object's text never ends with a number
				end++
			}
			number := detail[i:end]
			if _, err := strconv.ParseInt(number, 10, 64); err != nil && !strings.ContainsAny(number, ".eE") {
				return false
			}
			i = end - 1
		}
	}
	return true
}
