package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// schema is a contract, or a schema inside one. It has the keywords that contracts may use. Decoding refuses any other, because the
// generated files would leave it out in silence.
type schema struct {
	Schema      string     `yaml:"$schema"`
	Title       string     `yaml:"title"`
	Description string     `yaml:"description"`
	Source      string     `yaml:"x-amazon-events-source"`
	DetailType  string     `yaml:"x-amazon-events-detail-type"`
	Type        types      `yaml:"type"`
	Required    []string   `yaml:"required"`
	Properties  properties `yaml:"properties"`
	Items       *schema    `yaml:"items"`
	Enum        []string   `yaml:"enum"`
	Format      string     `yaml:"format"`
	Pattern     string     `yaml:"pattern"`
	Minimum     *int64     `yaml:"minimum"`
}

// types are the JSON types of a value.
type types []string

// UnmarshalYAML takes one type or a list of them.
func (t *types) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*t = types{node.Value}
		return nil
	}
	return node.Decode((*[]string)(t))
}

// properties are the members of an object, in the order of the file.
type properties []property

type property struct {
	name   string
	schema schema
}

// UnmarshalYAML keeps the order, which a map forgets.
func (p *properties) UnmarshalYAML(node *yaml.Node) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		one := property{name: node.Content[i].Value}
		// Node.Decode forgets KnownFields, so each member is decoded from its text.
		text, err := yaml.Marshal(node.Content[i+1])
		if err != nil {
			return err
		}
		if err := decode(text, &one.schema); err != nil {
			return fmt.Errorf("member %s: %w", one.name, err)
		}
		*p = append(*p, one)
	}
	return nil
}

// decode reads JSON, which is YAML, and refuses keywords that schema does not have.
func decode(text []byte, into *schema) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	return decoder.Decode(into)
}

// member returns the schema of a member at a path, such as detail, eventData.
func (s schema) member(path ...string) (schema, error) {
	for _, name := range path {
		i := slices.IndexFunc(s.Properties, func(p property) bool { return p.name == name })
		if i < 0 {
			return schema{}, fmt.Errorf("there is no member %s", strings.Join(path, "."))
		}
		s = s.Properties[i].schema
	}
	return s, nil
}

// contract is one file of contracts/.
type contract struct {
	schema

	file          string // its name, such as CarCreated.v1.json
	text          []byte
	aggregateType string // such as Car
	eventData     schema
}

// readContracts returns the contracts of a folder in the order of their file names.
func readContracts(dir string) ([]contract, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no contracts in %s", dir)
	}
	var all []contract
	for _, file := range files {
		c, err := readContract(file)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func readContract(file string) (contract, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return contract{}, err
	}
	c := contract{file: filepath.Base(file), text: text}
	if err := decode(text, &c.schema); err != nil {
		return contract{}, err
	}
	aggregate, err := c.member("detail", "aggregateType")
	if err != nil {
		return contract{}, err
	}
	if len(aggregate.Enum) != 1 {
		return contract{}, fmt.Errorf("detail.aggregateType has %d values, and needs one", len(aggregate.Enum))
	}
	c.aggregateType = aggregate.Enum[0]
	c.eventData, err = c.member("detail", "eventData")
	return c, err
}
