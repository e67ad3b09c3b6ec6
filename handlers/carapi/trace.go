package carapi

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"

	"rds-outbox-demo/outbox"
)

// Headers that name the trace of a request.
const (
	headerTraceparent = "Traceparent"     // W3C's, https://www.w3.org/TR/trace-context/#traceparent-header
	headerAmazon      = "X-Amzn-Trace-Id" // API Gateway's and Lambda's, in X-Ray's form
)

// startTrace writes a traceparent into the request's header. It keeps the client's. Without one it uses
// X-Ray's, so that the segments that AWS makes by itself have the same trace id. Without either it makes
// a new one, which nobody samples. A broken traceparent is not an error.
func startTrace(r *http.Request) {
	if outbox.ValidTraceparent(traceparent(r)) {
		return
	}
	s := fromXRay(r.Header.Get(headerAmazon))
	if !outbox.ValidTraceparent(s) {
		var ids [16 + 8]byte
		_, _ = rand.Read(ids[:]) // never fails, according to its documentation
		s = "00-" + hex.EncodeToString(ids[:16]) + "-" + hex.EncodeToString(ids[16:]) + "-00"
	}
	r.Header.Set(headerTraceparent, s)
}

// traceparent returns the traceparent for the request's event. Call it after startTrace.
func traceparent(r *http.Request) string { return r.Header.Get(headerTraceparent) }

// The root of an X-Ray trace has a version, eight hex digits of its time and 24 random ones
// (https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-traceids).
var (
	xrayRoot   = regexp.MustCompile(`^1-([0-9a-f]{8})-([0-9a-f]{24})$`)
	xrayParent = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// fromXRay makes a traceparent from X-Ray's header, such as
// Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1. Without tracing there is
// only a Root. It returns "" for anything that is not an X-Ray header.
func fromXRay(header string) string {
	root, parent, flags := "", "", "00"
	for member := range strings.SplitSeq(header, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(member), "=")
		switch name {
		case "Root":
			if m := xrayRoot.FindStringSubmatch(value); m != nil {
				root = m[1] + m[2]
			}
		case "Parent":
			if xrayParent.MatchString(value) {
				parent = value
			}
		case "Sampled":
			if value == "1" {
				flags = "01"
			}
		}
	}
	if root == "" {
		return ""
	}
	if parent == "" {
		parent = randomHex(8)
	}
	return "00-" + root + "-" + parent + "-" + flags
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails, according to its documentation
	return hex.EncodeToString(b)
}
