package carapi_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCreateBody sends any body. The answer must be 201 with one car and its event, or a 4xx with
// neither.
func FuzzCreateBody(f *testing.F) {
	for _, body := range []string{
		bmw, "", "null", "[]", `{"make":1}`, bmw + "x", `{"make":"BMW","model":"i3","year":2022,"color":null}`,
		`{"make":"\ud83d","model":"\u0000","year":1e400,"color":[]}`, "{\"make\":\"\xff\"}", "\ufeff{}",
		`{"make":"` + strings.Repeat("🚗", 101) + `","model":" ","year":-0}`, `{"make":"a\\","model":"\ufffd\ud800","year":2022}`,
		`{"make":"\u0001\u001f\u2028","model":"'; DROP TABLE cars; --","year":2027,"make":"b"}`,
	} {
		f.Add([]byte(body))
	}
	b := setup(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		cars, events := b.count(t, "cars"), b.count(t, "outbox")
		w := b.do(t, "POST", "/cars", string(body))
		if w.Code == 201 {
			cars, events = cars+1, events+1
			require.Equal(t, 200, b.do(t, "GET", w.Header().Get("Location"), "").Code)
		} else {
			require.Contains(t, []int{400, 413}, w.Code, w.Body)
			require.NotEmpty(t, decode(t, w.Body.Bytes())["error"])
		}
		require.Equal(t, cars, b.count(t, "cars"))
		require.Equal(t, events, b.count(t, "outbox"))
	})
}
