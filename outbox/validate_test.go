package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rds-outbox-demo/lab/labtest"
)

// FuzzValidateTokens compares with the tokens of json.Decoder.
func FuzzValidateTokens(f *testing.F) {
	for _, seed := range []string{
		`{"a":1e19,"b":[1,-2.5e-3,"3"]}`, `{"1e400":"\"1e400"}`, `{"a\\":1e400 }`, "{\"a\":[1e400\n]}", `{"a":{"b":[0,-0,1E+5]}}`, `{"\u0022":9223372036854775808}`,
		strings.Repeat(`{"a":[`, 500) + strings.Repeat("]}", 500), strings.Repeat("[", 999) + strings.Repeat("]", 999), "[" + strings.Repeat("[],", 1000) + "{}]",
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000), `"]"`, `12`, `true`,
	} {
		f.Add([]byte(seed))
	}
	refused := errors.New("refused")
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		got := validateTokens(data, func(string, ...any) error { return refused })
		if want := tokensTravel(data); (got == nil) != want {
			t.Fatalf("%q: %v, want %t", data, got, want)
		}
	})
}

func tokensTravel(data []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	for depth := 0; ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return true
		}
		switch token := token.(type) {
		case json.Delim:
			if depth++; strings.ContainsRune("]}", rune(token)) {
				depth -= 2
			}
			if depth > maxDataDepth {
				return false
			}
		case json.Number:
			if !numberTravels(token.String()) {
				return false
			}
		}
	}
}

// TestValidName compares all texts of one and two bytes with the pattern of the table's CHECKs.
func TestValidName(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)
	for first := range 256 {
		for second := range 256 {
			for _, s := range []string{string([]byte{byte(first)}), string([]byte{byte(first), byte(second)})} {
				if got, want := validName(s), pattern.MatchString(s); got != want {
					t.Errorf("%q: %t, want %t", s, got, want)
				}
			}
		}
	}
}

// BenchmarkAppend is what an event costs its writer before the database sees it.
func BenchmarkAppend(b *testing.B) {
	event := Event{
		ID: uuid.Must(uuid.NewV7()), AggregateType: "Car", AggregateID: uuid.NewString(), AggregateVersion: 1, Type: "CarCreated",
		Data: json.RawMessage(`{"carId":"019b7ce5-0d4e-7d38-9c2b-6f1c5a0b7e11","make":"Toyota","model":"Camry","year":2023,"color":"Blue",` +
			`"createdAt":"2026-01-02T03:04:05.678901Z"}`),
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
	}
	defer labtest.AllocsAtMost(b, 12)()
	for b.Loop() {
		if err := Append(b.Context(), &Batch{}, event); err != nil {
			b.Fatal(err)
		}
	}
}
