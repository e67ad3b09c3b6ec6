// Package sdkhttp mends a race between the AWS SDK and net/http that repeats calls.
//
// In: the HTTP client of an aws.Config, or nil. Out: one that an answered call does not break.
package sdkhttp

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// Quiet returns client, or the SDK's own for nil, with request bodies that end without an error.
//
// After sending Content-Length bytes net/http copies what is left of a body. If the answer is there already, the SDK has closed the body,
// and its WriteTo then returns io.EOF as an error. net/http takes that for a broken connection and closes it while the answer is being
// read ("use of closed network connection"). The SDK then sends the call again, although it was accepted. A body without WriteTo ends
// quietly.
func Quiet(client aws.HTTPClient) aws.HTTPClient {
	if client == nil {
		client = awshttp.NewBuildableClient()
	}
	return quiet{client}
}

type quiet struct{ next aws.HTTPClient }

func (q quiet) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return q.next.Do(r)
}
