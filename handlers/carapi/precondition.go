package carapi

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// etag returns a car's entity tag. It is the version, which every change increments. It is a strong
// tag. Without it a client cannot make its change depend on the version that it has read.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// precondition is a request's If-Match (RFC 9110, 13.1.1). The car's tag must be one of its strong
// tags.
type precondition struct {
	any  bool // every version matches, because If-Match was not sent or is *
	tags []string
}

// entityTag matches one tag at the head of a list, and the separator before the next.
var entityTag = regexp.MustCompile(`^[ \t,]*(W/)?("[^"\x00-\x20\x7f]*")[ \t]*(?:,|$)`)

// readIfMatch returns an *invalidError for an If-Match that it cannot parse. Ignoring such a header
// would overwrite a change that the client has not seen.
func readIfMatch(r *http.Request) (precondition, error) {
	values := r.Header.Values("If-Match")
	if len(values) == 0 {
		return precondition{any: true}, nil
	}
	rest := strings.Trim(strings.Join(values, ","), " \t,")
	if rest == "*" {
		return precondition{any: true}, nil
	}
	invalid := invalidHeader("If-Match", `must be * or a list of entity tags such as "3"`)
	if rest == "" {
		return precondition{}, invalid
	}
	var p precondition
	for rest != "" {
		match := entityTag.FindStringSubmatch(rest)
		if match == nil {
			return precondition{}, invalid
		}
		if match[1] == "" { // a weak tag is never equal to any
			p.tags = append(p.tags, match[2])
		}
		rest = rest[len(match[0]):]
	}
	return p, nil
}

func (p precondition) check(version int64) error {
	if p.any {
		return nil
	}
	for _, tag := range p.tags {
		if tag == etag(version) {
			return nil
		}
	}
	return errChanged
}
