package carapi_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRefusedFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	b.expectOneCarAtEnd(t)
	const text, whole, years = "must be a string", "must be a whole number", "must be from 1886 to 2027"
	for name, test := range map[string]struct {
		body          string
		create, patch map[string]string // the fields of the answer. A nil patch is the same as create.
	}{
		"NothingSent": {`{}`, map[string]string{"make": "is required", "model": "is required", "year": "is required"}, map[string]string{}},
		"OnlyUnknown": {`{"MAKE":"BMW","Model":"i3"}`, map[string]string{"make": "is required", "model": "is required", "year": "is required"}, map[string]string{}},
		"AllAtOnce": {`{"make":"","model":7,"year":"2020","color":false}`,
			map[string]string{"make": "must not be empty", "model": text, "year": whole, "color": text}, nil},
		"WrongAndMissing": {`{"model":" ","year":1885}`,
			map[string]string{"make": "is required", "model": "must not be empty", "year": years}, map[string]string{"model": "must not be empty", "year": years}},
		"NullForRequired":      {`{"make":null,"model":null,"year":null}`, map[string]string{"make": text, "model": text, "year": whole}, nil},
		"ObjectsAndLists":      {`{"make":{},"model":[],"year":[2020],"color":{"a":1}}`, map[string]string{"make": text, "model": text, "year": whole, "color": text}, nil},
		"EmptyColor":           {with("color", `""`), map[string]string{"color": "must not be empty"}, nil},
		"BlankColor":           {with("color", `"\u2003\n"`), map[string]string{"color": "must not be empty"}, nil},
		"MakeTooLong":          {with("make", quote("ü", 101)), map[string]string{"make": "must have at most 100 characters"}, nil},
		"ModelTooLong":         {with("model", quote("x", 101)), map[string]string{"model": "must have at most 100 characters"}, nil},
		"ColorTooLong":         {with("color", quote("🚗", 51)), map[string]string{"color": "must have at most 50 characters"}, nil},
		"EscapedNul":           {with("make", `"a\u0000b"`), map[string]string{"make": "must not contain U+0000"}, nil},
		"NulOnly":              {with("color", `"\u0000"`), map[string]string{"color": "must not contain U+0000"}, nil},
		"EscapedFFFE":          {with("make", `"a\ufffeb"`), map[string]string{"make": "must not contain U+FFFE or U+FFFF"}, nil},
		"RawFFFF":              {with("color", "\"\uFFFF\""), map[string]string{"color": "must not contain U+FFFE or U+FFFF"}, nil},
		"HighHalfOfSurrogate":  {with("make", `"a\ud83d"`), map[string]string{"make": "must not contain half of a surrogate pair"}, nil},
		"LowHalfOfSurrogate":   {with("color", `"\uDE97"`), map[string]string{"color": "must not contain half of a surrogate pair"}, nil},
		"HalfBesideFFFD":       {with("make", `"\ufffd\ud800"`), map[string]string{"make": "must not contain half of a surrogate pair"}, nil},
		"HalfBesideRawFFFD":    {with("model", "\"\uFFFD\\udc00\""), map[string]string{"model": "must not contain half of a surrogate pair"}, nil},
		"LineEnd":              {with("make", `"a\nb"`), map[string]string{"make": "must not contain the control character U+000A"}, nil},
		"Escape":               {with("make", `"\u001b[31m"`), map[string]string{"make": "must not contain the control character U+001B"}, nil},
		"Delete":               {with("color", "\"a\x7f\""), map[string]string{"color": "must not contain the control character U+007F"}, nil},
		"C1":                   {with("color", `"\u009b31m"`), map[string]string{"color": "must not contain the control character U+009B"}, nil},
		"Override":             {with("make", `"a\u202eb"`), map[string]string{"make": "must not contain U+202E, which reorders the text after it"}, nil},
		"RawIsolate":           {with("make", "\"\u2067b\""), map[string]string{"make": "must not contain U+2067, which reorders the text after it"}, nil},
		"InvisibleOnly":        {with("make", `"\u200b\u200d\ufeff\u2060"`), map[string]string{"make": "must have a visible character"}, nil},
		"MarkOnly":             {with("model", `"\u0301"`), map[string]string{"model": "must have a visible character"}, nil},
		"FillerOnly":           {with("color", `"\u3164\u2800"`), map[string]string{"color": "must have a visible character"}, nil},
		"YearOfHalf":           {with("year", "2020.5"), map[string]string{"year": whole}, nil},
		"YearWithPoint":        {with("year", "2020.0"), map[string]string{"year": whole}, nil},
		"YearWithExponent":     {with("year", "2.02e3"), map[string]string{"year": whole}, nil},
		"YearTrue":             {with("year", "true"), map[string]string{"year": whole}, nil},
		"YearString":           {with("year", `"2020"`), map[string]string{"year": whole}, nil},
		"YearZero":             {with("year", "0"), map[string]string{"year": years}, nil},
		"YearNegative":         {with("year", "-2020"), map[string]string{"year": years}, nil},
		"YearTooEarly":         {with("year", "1885"), map[string]string{"year": years}, nil},
		"YearAfterNext":        {with("year", "2028"), map[string]string{"year": years}, nil},
		"YearBeyondInt32":      {with("year", "4294969316"), map[string]string{"year": years}, nil},
		"YearBeyondInt64":      {with("year", strings.Repeat("9", 400)), map[string]string{"year": years}, nil},
		"YearBeyondEverything": {with("year", "1e400"), map[string]string{"year": whole}, nil},
		"LastOfDuplicates":     {`{"make":"BMW","model":"i3","year":2022,"make":null}`, map[string]string{"make": text}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireRefused(t, b, "POST", "/cars", test.body, test.create)
			if test.patch == nil {
				test.patch = test.create
			}
			requireRefused(t, b, "PATCH", path, test.body, test.patch)
		})
	}
}

// with returns a body that is valid except for one field.
func with(name, value string) string {
	body := map[string]json.RawMessage{"make": []byte(`"BMW"`), "model": []byte(`"i3"`), "year": []byte("2022")}
	body[name] = []byte(value)
	var members []string
	for name, value := range body {
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func quote(char string, times int) string { return `"` + strings.Repeat(char, times) + `"` }

func requireRefused(t *testing.T, b bundle, method, path, body string, fields map[string]string) {
	t.Helper()
	w := b.do(t, method, path, body)
	require.Equal(t, 400, w.Code, "%s %.200s: %s", method, body, w.Body)
	var answer struct {
		Error  string
		Fields map[string]string
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	require.NotEmpty(t, answer.Error)
	if len(fields) == 0 {
		require.NotContains(t, decode(t, w.Body.Bytes()), "fields")
		return
	}
	require.Equal(t, fields, answer.Fields)
}

// What a page of the web can send without asking the API first is one of these.
func TestOnlyJSONIsTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	b.expectOneCarAtEnd(t)
	for _, kinds := range [][]string{
		nil, {""}, {"application/x-www-form-urlencoded"}, {"multipart/form-data; boundary=x"}, {"text/plain"}, {"text/plain; application/json"}, {"text/plain;charset=utf-8"},
		{"text/json"}, {"application/jsonp"}, {"application/json-patch+json"}, {"application/json, text/plain"}, {"application/json", "text/plain"},
		{"application/json", "application/json"}, {";application/json"},
	} {
		for _, route := range [][2]string{{"POST", "/cars"}, {"PATCH", path}} {
			r := httptest.NewRequestWithContext(t.Context(), route[0], route[1], strings.NewReader(bmw))
			if kinds != nil {
				r.Header["Content-Type"] = kinds
			}
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, r)
			requireDescribed(t, r, bmw, w)
			require.Equal(t, 415, w.Code, "%s %q", route, kinds)
			require.Contains(t, decode(t, w.Body.Bytes())["error"], "-H 'Content-Type: application/json'")
		}
	}
	for _, kind := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;charset=\"UTF-8\""} {
		require.Equal(t, 400, b.do(t, "PATCH", path, `{}`, "Content-Type", kind).Code, kind)
		require.Equal(t, 400, b.do(t, "POST", "/cars", `{}`, "Content-Type", kind).Code, kind)
	}
}

func TestRefusedBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	b.expectOneCarAtEnd(t)
	const mib = 1 << 20
	padded := func(size int) string { return bmw + strings.Repeat(" ", size-len(bmw)) }
	for name, test := range map[string]struct {
		body    string
		status  int
		message string
	}{
		"Empty":            {"", 400, "the body is empty: send a JSON object"},
		"Space":            {" \n", 400, "the body is not valid JSON"},
		"Null":             {"null", 400, "the body is not a JSON object"},
		"List":             {"[" + bmw + "]", 400, "the body is not a JSON object"},
		"Number":           {"1e999999", 400, "the body is not a JSON object"},
		"String":           {`"` + strings.ReplaceAll(bmw, `"`, `\"`) + `"`, 400, "the body is not a JSON object"},
		"CutShort":         {bmw[:len(bmw)-1], 400, "the body is not valid JSON"},
		"TrailingGarbage":  {bmw + "x", 400, "the body is not valid JSON"},
		"TwoObjects":       {bmw + bmw, 400, "the body is not valid JSON"},
		"TrailingComma":    {`{"make":"BMW","model":"i3","year":2022,}`, 400, "the body is not valid JSON"},
		"SingleQuotes":     {`{'make':'BMW','model':'i3','year':2022}`, 400, "the body is not valid JSON"},
		"NaN":              {`{"make":"BMW","model":"i3","year":NaN}`, 400, "the body is not valid JSON"},
		"LeadingZero":      {`{"make":"BMW","model":"i3","year":02022}`, 400, "the body is not valid JSON"},
		"Form":             {"make=BMW&model=i3&year=2022", 400, "the body is not valid JSON"},
		"ByteOrderMark":    {"\ufeff" + bmw, 400, "the body is not valid JSON"},
		"RawNul":           {"{\"make\":\"B\x00W\",\"model\":\"i3\",\"year\":2022}", 400, "the body is not valid JSON"},
		"RawNewline":       {"{\"make\":\"B\nW\",\"model\":\"i3\",\"year\":2022}", 400, "the body is not valid JSON"},
		"InvalidUTF8":      {"{\"make\":\"B\xffW\",\"model\":\"i3\",\"year\":2022}", 400, "the body is not valid UTF-8"},
		"Latin1":           {"{\"make\":\"Citro\xebn\",\"model\":\"2CV\",\"year\":1949}", 400, "the body is not valid UTF-8"},
		"UTF8Surrogate":    {"{\"make\":\"\xed\xa0\x80\",\"model\":\"i3\",\"year\":2022}", 400, "the body is not valid UTF-8"},
		"InvalidUTF8InKey": {"{\"\xc0\x80\":1,\"make\":\"BMW\",\"model\":\"i3\",\"year\":2022}", 400, "the body is not valid UTF-8"},
		"DeepLists":        {strings.Repeat("[", mib/2) + strings.Repeat("]", mib/2), 400, "the body is not valid JSON"},
		"DeepUnknownField": {`{"x":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_001), 400, "the body is not valid JSON"},
		"LargeString":      {`{"make":` + quote("x", mib-100) + `,"model":"i3","year":2022}`, 400, "invalid fields"},
		"JustTooLarge":     {padded(mib + 1), 413, "the body is larger than 1048576 bytes"},
		"FarTooLarge":      {strings.Repeat("x", 8*mib), 413, "the body is larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, route := range [][2]string{{"POST", "/cars"}, {"PATCH", path}} {
				w := b.do(t, route[0], route[1], test.body)
				require.Equal(t, test.status, w.Code, w.Body)
				require.Equal(t, test.message, decode(t, w.Body.Bytes())["error"])
			}
		})
	}
	t.Run("ExactlyOneMiBIsTaken", func(t *testing.T) {
		require.Equal(t, 201, setup(t).do(t, "POST", "/cars", padded(mib)).Code)
	})
}
