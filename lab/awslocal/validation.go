package awslocal

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// validated answers with a ValidationException if there are violations. It names ten of them, as kinesalite 3.3.3 does, and leaves
// the refused values out, as AWS does today (amazon-kinesis-producer#680).
func validated(violations []string) error {
	violations = violations[:min(10, len(violations))]
	if len(violations) == 0 {
		return nil
	}
	plural := ""
	if len(violations) > 1 {
		plural = "s"
	}
	return clientError("ValidationException", fmt.Sprintf("%d validation error%s detected: %s", len(violations), plural, strings.Join(violations, "; ")))
}

func violation(member, constraint string) string {
	return "Value at '" + member + "' failed to satisfy constraint: " + constraint
}

func nullAt(member string) string {
	return "Value null at '" + member + "' failed to satisfy constraint: Member must not be null"
}

func atMost(n int) string { return fmt.Sprintf("Member must have length less than or equal to %d", n) }

const atLeastOne = "Member must have length greater than or equal to 1"

// The patterns and limits below are those of the service's model (botocore 1.43.11,
// kinesis/2013-12-02/service-2.json).
var (
	namePattern     = newPattern(`[a-zA-Z0-9_.-]+`)
	hashKeyPattern  = newPattern(`0|([1-9]\d{0,38})`)
	sequencePattern = newPattern(`0|([1-9]\d{0,128})`)
)

const maxName = 128

type pattern struct {
	text  string // the pattern's text in the model, where it means the whole value
	whole *regexp.Regexp
}

func newPattern(text string) pattern { return pattern{text, regexp.MustCompile(`^(` + text + `)$`)} }

func (p pattern) check(member, value string) []string {
	if p.whole.MatchString(value) {
		return nil
	}
	return []string{violation(member, "Member must satisfy regular expression pattern: "+p.text)}
}

// checkOptional takes nil for a member that was not sent. An empty value was.
func (p pattern) checkOptional(member string, value *string) []string {
	if value == nil {
		return nil
	}
	return p.check(member, *value)
}

// checkLength is for a required text, in characters, or list.
func checkLength(member string, n, most int) []string {
	switch {
	case n < 1:
		return []string{violation(member, atLeastOne)}
	case n > most:
		return []string{violation(member, atMost(most))}
	}
	return nil
}

// checkName is for the name of a stream and the id of a shard.
func checkName(member, value string) []string {
	return append(namePattern.check(member, value), checkLength(member, utf8.RuneCountInString(value), maxName)...)
}

// checkLimit is for an optional number of things to return, 1 to 10,000.
func checkLimit(member string, value *int) []string {
	switch {
	case value == nil:
		return nil
	case *value < 1:
		return []string{violation(member, "Member must have value greater than or equal to 1")}
	case *value > 10_000:
		return []string{violation(member, "Member must have value less than or equal to 10000")}
	}
	return nil
}
