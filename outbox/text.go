package outbox

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// The rules for text are here alone. The API uses them for its fields, and Append uses them for ids and payloads.
//
// Text is not normalised. It travels as it was sent, because a change to another form (NFC) would make the event differ from what the
// client knows. So two spellings of é are two texts, and whoever compares names normalises both.

// TextFault names what a name or another single line of text must not contain, such as "U+0000". It returns "" if s can be stored,
// published and shown on one line. s is valid UTF-8.
func TextFault(s string) string {
	for _, r := range s {
		if fault := runeFault(r); fault != "" {
			return fault
		}
	}
	return ""
}

// Visible reports whether s has a character that leaves a mark on a screen by itself. Spaces, joiners, fillers and combining marks do not.
func Visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, marking...) &&
			!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && r != '\u2800' // a symbol without dots
	})
}

var marking = []*unicode.RangeTable{unicode.L, unicode.N, unicode.P, unicode.S}

// JSONFault names what the strings in valid JSON text must not contain, whether it is written as itself or as an escape. It returns "" if
// there is nothing. Tabs and line ends may be in a payload's text.
//
// It reads the JSON text, because encoding/json makes U+FFFD of half a surrogate pair without an error.
func JSONFault(data []byte) string {
	for i := 0; i < len(data); {
		r, size := rune(data[i]), 1
		switch {
		case r == '\\':
			r, size = escaped(data[i:])
		case r >= utf8.RuneSelf:
			r, size = utf8.DecodeRune(data[i:])
		}
		if r != '\t' && r != '\n' && r != '\r' {
			if fault := runeFault(r); fault != "" {
				return fault
			}
		}
		i += size
	}
	return ""
}

// half stands for half of a surrogate pair, which is no character.
const half = -1

// runeFault is small enough to be inlined, and almost every rune goes no further.
func runeFault(r rune) string {
	if r >= ' ' && r <= '~' {
		return ""
	}
	return unusualFault(r)
}

func unusualFault(r rune) string {
	switch {
	case r == half:
		return "half of a surrogate pair"
	case r == 0: // PostgreSQL cannot store it
		return "U+0000"
	// SQS takes only characters of XML 1.0, and EventBridge may put an event into a subscriber's queue as it is
	// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
	case r == '\uFFFE' || r == '\uFFFF':
		return "U+FFFE or U+FFFF"
	case unicode.Is(unicode.Cc, r): // on a terminal they move the cursor or start a command
		return fmt.Sprintf("the control character U+%04X", r)
	// Embeddings, overrides and isolates. Hebrew and Arabic need none of them inside a name. The marks U+200E, U+200F and U+061C are
	// allowed, because they move nothing but their neighbours.
	case r >= '\u202A' && r <= '\u202E' || r >= '\u2066' && r <= '\u2069':
		return fmt.Sprintf("U+%04X, which reorders the text after it", r)
	}
	return ""
}

// escaped returns the character of the escape at the start of data, or half, and the length of the escape.
func escaped(data []byte) (r rune, size int) {
	switch data[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'u':
		r = hex4(data[2:])
	default: // '"', '\\', '/', or a line end or tab, which are allowed
		return ' ', 2
	}
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if rest := data[6:]; len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
		if r = utf16.DecodeRune(r, hex4(rest[2:])); r != unicode.ReplacementChar {
			return r, 12
		}
	}
	return half, 6
}

func hex4(b []byte) rune {
	code, _ := strconv.ParseUint(string(b[:4]), 16, 16) // valid JSON has four hex digits here
	return rune(code)
}
