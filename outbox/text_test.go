package outbox_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/outbox"
)

// TestJSONFaultAgreesWithTheText writes a text in many spellings of JSON. Its faults must be those of the text, whatever the spelling.
func TestJSONFaultAgreesWithTheText(t *testing.T) {
	t.Parallel()
	hostile := rapid.SampledFrom([]rune("\x00\x01\b\f\x1b\x7f\u0085\u009b\u200b\u200e\u202a\u202e\u2066\u2069\ufeff\ufffd\ufffe\uffff\U0001F697\U0010FFFF\"\\/u"))
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.OneOf(rapid.Rune(), hostile), 0, 12).Draw(t, "text"))
		literal := spell(t, text)
		var read string
		require.NoError(t, json.Unmarshal([]byte(literal), &read))
		require.Equal(t, text, read)
		// A payload may have tabs and line ends, which the text of one line may not.
		lines := strings.Map(func(r rune) rune {
			if strings.ContainsRune("\t\r\n", r) {
				return ' '
			}
			return r
		}, text)
		require.Equal(t, outbox.TextFault(lines), outbox.JSONFault([]byte(`{"a":`+literal+`}`)), literal)

		for _, r := range text {
			if unicode.Is(unicode.Cc, r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfffe || r == 0xffff {
				require.NotEmpty(t, outbox.TextFault(text), "%U", r)
			}
		}
		// Half of a pair is found wherever it stands, also beside the character that encoding/json makes of it.
		lone := fmt.Sprintf(`\u%04x`, rapid.IntRange(0xd800, 0xdfff).Draw(t, "half"))
		require.NotEmpty(t, outbox.JSONFault([]byte(`["\ufffd`+lone+`",`+literal+`]`)))
	})
}

// spell writes a text as a JSON string, and draws for each character whether it is an escape.
func spell(t *rapid.T, text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		if r >= ' ' && r != '"' && r != '\\' && rapid.Bool().Draw(t, "raw") {
			b.WriteRune(r)
			continue
		}
		form := rapid.SampledFrom([]string{`\u%04x`, `\u%04X`}).Draw(t, "form")
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, form, unit)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func TestVisible(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a", "é", "e\u0301", "漢", "שלום", "🚗", "👨\u200d👩", "\u200ba", "+", "\ufffd"} {
		require.True(t, outbox.Visible(s), "%+q", s)
		require.Empty(t, outbox.TextFault(s), "%+q", s)
	}
	for _, s := range []string{"", " ", "\u00a0\u3000", "\u200b", "\u200d\ufe0f", "\u0301", "\u3164", "\u115f\u1160\uffa0", "\u2800", "\u00ad", "\ue000", "\U000e0041"} {
		require.False(t, outbox.Visible(s), "%+q", s)
	}
}
