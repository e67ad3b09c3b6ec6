package contracts_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/outbox"
)

var codePoints = regexp.MustCompile(`U\+([0-9A-F]{4})(?: to U\+([0-9A-F]{4}))?`)

// Subscribers and clients read the rule for text in the contracts and in openapi.json. Package outbox decides by it, so each character is
// tried.
func TestTextIsWhatTheContractsSay(t *testing.T) {
	t.Parallel()
	said := map[string]func(r rune) bool{} // whether a text with this character is refused
	for name, contract := range load(t, ".") {
		detail := contract["properties"].(schema)["detail"].(schema)["properties"].(schema)
		_, rule, ok := strings.Cut(detail["eventData"].(schema)["description"].(string), "No text in it has a control character other than a tab or a line end, half of a surrogate pair, ")
		require.True(t, ok, "%s does not say the rule", name)
		said[rule] = func(r rune) bool {
			literal, err := json.Marshal(string(r))
			require.NoError(t, err)
			return outbox.JSONFault(literal) != "" || strings.ContainsRune("\t\n\r", r) // the rule takes these out
		}
	}
	require.Len(t, said, 1, "all contracts say the same")
	var api struct{ Info struct{ Description string } }
	text, err := os.ReadFile("../handlers/carapi/openapi.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &api))
	_, rule, ok := strings.Cut(api.Info.Description, "no control characters, no half of a surrogate pair, no ")
	require.True(t, ok)
	said[rule] = func(r rune) bool { return outbox.TextFault(string(r)) != "" }

	for rule, refused := range said {
		listed := map[rune]bool{}
		for _, match := range codePoints.FindAllStringSubmatch(rule, -1) {
			first := codePoint(t, match[1])
			last := first
			if match[2] != "" {
				last = codePoint(t, match[2])
			}
			for r := first; r <= last; r++ {
				listed[r] = true
			}
		}
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if r >= 0xD800 && r <= 0xDFFF {
				continue // half of a pair
			}
			if want := listed[r] || unicode.Is(unicode.Cc, r); refused(r) != want {
				require.Equal(t, want, refused(r), "%U, of the rule %s", r, rule)
			}
		}
	}
	require.NotEmpty(t, outbox.JSONFault([]byte(`"\ud800"`)))
}

func codePoint(t *testing.T, hex string) rune {
	t.Helper()
	code, err := strconv.ParseUint(hex, 16, 21)
	require.NoError(t, err)
	return rune(code)
}
