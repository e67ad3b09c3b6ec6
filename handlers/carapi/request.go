package carapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/outbox"
)

// Limits of a request. The limits of the fields are the widths of table cars, because varchar(n) counts
// characters, too.
const (
	maxBodyBytes  = 1 << 20
	maxMakeChars  = 100
	maxModelChars = 100
	maxColorChars = 50
	minYear       = 1886 // the first patented car
)

// sentCar is the part of a car that a body carries. A nil field was not sent.
type sentCar struct {
	make, model *string
	year        *int32
	color       *string
	noColor     bool // null was sent, which removes the color
}

func (s sentCar) apply(car *dbgen.Car) {
	if s.make != nil {
		car.Make = *s.make
	}
	if s.model != nil {
		car.Model = *s.model
	}
	if s.year != nil {
		car.Year = *s.year
	}
	if s.color != nil || s.noColor {
		car.Color = s.color
	}
}

// readJSON returns the whole body of a request that declares it as JSON. Its errors are errNotJSON and those of readBody.
func readJSON(r *http.Request) ([]byte, error) {
	// For any page, a browser sends text/plain, a form or no type at all. It asks the API for permission only before JSON. So a body
	// without a type is refused, too.
	kinds := r.Header.Values("Content-Type")
	if len(kinds) != 1 {
		return nil, errNotJSON
	}
	if kind, _, _ := strings.Cut(kinds[0], ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
		return nil, errNotJSON
	}
	return readBody(r)
}

// readBody returns the whole body, or an *invalidError or *http.MaxBytesError.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBodyBytes { // MaxBytesReader would wait for 1 MiB of it first
		return nil, &http.MaxBytesError{Limit: maxBodyBytes}
	}
	data, err := io.ReadAll(r.Body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLarge {
		return nil, &invalidError{message: "the body ended early"}
	}
	return data, err
}

// readCar reads a body of the shape {"make","model","year","color"}. If complete, only color may be left
// out (POST). Otherwise at least one field must be there (PATCH). Names are case-sensitive. Unknown names
// are ignored. If a name comes twice, the last one counts. readCar returns an *invalidError that names
// every wrong field.
func readCar(body []byte, maxYear int, complete bool) (sentCar, error) {
	f, err := readFields(body)
	if err != nil {
		return sentCar{}, err
	}
	if complete {
		f.require("make", "model", "year")
	} else if !f.hasAny("make", "model", "year", "color") {
		return sentCar{}, &invalidError{message: "the body has none of the fields make, model, year, color"}
	}
	sent := sentCar{make: f.text("make", maxMakeChars), model: f.text("model", maxModelChars), year: f.year("year", maxYear)}
	if sent.noColor = f.isNull("color"); !sent.noColor {
		sent.color = f.text("color", maxColorChars)
	}
	if len(f.wrong) > 0 {
		return sentCar{}, &invalidError{message: "invalid fields", fields: f.wrong}
	}
	return sent, nil
}

// fields are the members of a body, and their errors. They are read one by one, because encoding/json
// stops at the first field of a wrong type and would take "MAKE" for make.
type fields struct {
	sent  map[string]json.RawMessage
	wrong map[string]string
}

func readFields(data []byte) (fields, error) {
	var f fields
	switch {
	case len(data) == 0:
		return f, &invalidError{message: "the body is empty: send a JSON object"}
	case !utf8.Valid(data): // encoding/json would replace the invalid bytes without an error
		return f, &invalidError{message: "the body is not valid UTF-8"}
	}
	err := json.Unmarshal(data, &f.sent)
	_, invalid := errors.AsType[*json.SyntaxError](err)
	switch {
	case invalid:
		return f, &invalidError{message: "the body is not valid JSON"}
	case err != nil || f.sent == nil: // null is not an object either, and leaves the map nil without an error
		return f, &invalidError{message: "the body is not a JSON object"}
	}
	return f, nil
}

func (f *fields) hasAny(names ...string) bool {
	for _, name := range names {
		if _, ok := f.sent[name]; ok {
			return true
		}
	}
	return false
}

func (f *fields) require(names ...string) {
	for _, name := range names {
		if _, ok := f.sent[name]; !ok {
			f.refuse(name, "is required")
		}
	}
}

func (f *fields) isNull(name string) bool { return string(f.sent[name]) == "null" }

func (f *fields) refuse(name, reason string) {
	if f.wrong == nil {
		f.wrong = map[string]string{}
	}
	f.wrong[name] = reason
}

// text returns nil for a field that was not sent or is wrong.
func (f *fields) text(name string, maxChars int) *string {
	raw, ok := f.sent[name]
	if !ok {
		return nil
	}
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		f.refuse(name, "must be a string")
		return nil
	}
	s = strings.TrimSpace(s)
	switch fault := cmp.Or(outbox.JSONFault(raw), outbox.TextFault(s)); {
	case fault != "":
		f.refuse(name, "must not contain "+fault)
	case s == "":
		f.refuse(name, "must not be empty")
	case !outbox.Visible(s):
		f.refuse(name, "must have a visible character")
	case utf8.RuneCountInString(s) > maxChars:
		f.refuse(name, fmt.Sprintf("must have at most %d characters", maxChars))
	default:
		return &s
	}
	return nil
}

// year accepts only digits. 2020.5, 2.02e3 and "2020" are wrong. It returns nil for a field that was not
// sent or is wrong.
func (f *fields) year(name string, latest int) *int32 {
	raw, ok := f.sent[name]
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		f.refuse(name, "must be a whole number")
	case err != nil || n < minYear || n > int64(latest):
		f.refuse(name, fmt.Sprintf("must be from %d to %d", minYear, latest))
	default:
		year := int32(n)
		return &year
	}
	return nil
}
