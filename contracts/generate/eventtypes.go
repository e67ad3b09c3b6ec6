package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"go/format"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"unicode"
)

//go:embed eventtypes.go.tmpl
var eventTypesText string

var eventTypesTemplate = template.Must(template.New("").
	Funcs(template.FuncMap{"quote": strconv.Quote, "exported": exported}).Parse(eventTypesText))

// goFile is what the template gets. Times and UUIDs say which packages are imported.
type goFile struct {
	Contracts    []*goContract
	Types        []goType
	Times, UUIDs bool
}

type goContract struct{ Go, DetailType, AggregateType string }

// goType is a struct with Fields, or a string with Values. Contract is set for the eventData itself.
type goType struct {
	Go, Doc  string
	Contract *goContract
	Fields   []goField
	Values   []string
}

type goField struct{ Go, Doc, Type, Tag string }

// eventTypes returns the source of package eventtypes.
func eventTypes(contracts []contract) ([]byte, error) {
	var file goFile
	for _, c := range contracts {
		of := &goContract{exported(c.DetailType), c.DetailType, c.aggregateType}
		file.Contracts = append(file.Contracts, of)
		doc := fmt.Sprintf("%s is the eventData of event type %s. %s %s", of.Go, c.DetailType, c.Description, c.eventData.Description)
		i := len(file.Types)
		if err := file.object(of.Go, doc, c.eventData); err != nil {
			return nil, fmt.Errorf("%s: eventData%w", c.file, err)
		}
		file.Types[i].Contract = of
	}
	var source bytes.Buffer
	if err := eventTypesTemplate.Execute(&source, file); err != nil {
		return nil, err
	}
	formatted, err := format.Source(source.Bytes())
	if err != nil {
		return nil, fmt.Errorf("formatting eventtypes.go: %w", err)
	}
	return formatted, nil
}

// object adds the struct of an object, and after it the types of its members.
func (f *goFile) object(name, doc string, s schema) error {
	i := len(f.Types)
	f.Types = append(f.Types, goType{Go: name, Doc: comment(doc)})
	var fields []goField
	for _, p := range s.Properties {
		field := goField{Go: exported(p.name), Tag: p.name}
		var err error
		if field.Type, err = f.value(name+field.Go, p.schema); err != nil {
			return fmt.Errorf(".%s%w", p.name, err)
		}
		words := p.schema.Description
		if slices.Equal(p.schema.Type, types{"array"}) && slices.Contains(s.Required, p.name) {
			words += " Never nil, which would be null in JSON."
		}
		if words != "" {
			field.Doc = comment(words)
		}
		if !slices.Contains(s.Required, p.name) {
			field.Tag += ",omitempty"
			if !strings.HasPrefix(field.Type, "[]") && field.Type != "json.RawMessage" {
				field.Type = "*" + strings.TrimPrefix(field.Type, "*")
			}
		}
		fields = append(fields, field)
	}
	f.Types[i].Fields = fields
	return nil
}

// uuidPattern is how a contract says that a string is a UUID. Draft 4 has no such format.
const uuidPattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

// value returns the Go type of a value. A type that has to be declared for it gets the name. A value that may be null is a pointer.
func (f *goFile) value(name string, s schema) (string, error) {
	of := slices.DeleteFunc(slices.Clone(s.Type), func(t string) bool { return t == "null" })
	if len(of) != 1 {
		return "", fmt.Errorf(" has types %v, and needs one besides null", s.Type)
	}
	pointer := ""
	if len(s.Type) > 1 {
		pointer = "*"
	}
	switch of[0] {
	case "string":
		return pointer + f.text(name, s), nil
	case "integer":
		return pointer + "int64", nil
	case "number":
		return pointer + "float64", nil
	case "boolean":
		return pointer + "bool", nil
	case "object":
		if len(s.Properties) == 0 {
			return "json.RawMessage", nil
		}
		return pointer + name, f.object(name, fmt.Sprintf("%s is an object inside an event. %s", name, s.Description), s)
	case "array":
		if s.Items == nil {
			return "", errors.New(" is an array without items")
		}
		item, err := f.value(name+"Item", *s.Items)
		if err != nil {
			return "", fmt.Errorf("[]%w", err)
		}
		return "[]" + item, nil // null is a nil slice
	}
	return "", fmt.Errorf(" has the unknown type %s", of[0])
}

func (f *goFile) text(name string, s schema) string {
	switch {
	case len(s.Enum) > 0:
		f.Types = append(f.Types, goType{Go: name, Doc: comment(fmt.Sprintf("%s is one of a few texts. %s", name, s.Description)), Values: s.Enum})
		return name
	case s.Format == "date-time":
		f.Times = true
		return "time.Time"
	case s.Pattern == uuidPattern:
		f.UUIDs = true
		return "uuid.UUID"
	}
	return "string"
}

// exported makes a Go name of the words of a text. carId becomes CarID, and CarCreated.v2 becomes
// CarCreatedV2.
func exported(text string) string {
	var name strings.Builder
	upper := true
	for _, r := range text {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			upper = true
			continue
		case upper:
			r = unicode.ToUpper(r)
		}
		upper = false
		name.WriteRune(r)
	}
	if before, ok := strings.CutSuffix(name.String(), "Id"); ok {
		return before + "ID"
	}
	return name.String()
}

// comment makes a comment of lines of at most 100 columns.
func comment(text string) string {
	var lines []string
	line := "//"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			lines, line = append(lines, line), "//"
		}
		line += " " + word
	}
	return strings.Join(append(lines, line), "\n")
}
