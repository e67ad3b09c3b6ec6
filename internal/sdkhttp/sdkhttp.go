// Package sdkhttp mends two faults of the AWS SDK's HTTP client. An answered call can break its connection, and is then sent again. And
// a connection that has died silently is used for ever.
//
// In: the HTTP client of an aws.Config, or nil. Out: one without these faults.
package sdkhttp

import (
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// An HTTP/2 connection on which nothing arrives for sendPingTimeout gets a ping, and is closed if the answer takes longer than
// pingTimeout. The answer waits behind what a slow link has still to carry, so pingTimeout is longer than such a link takes for a small
// call.
const (
	sendPingTimeout = 15 * time.Second
	pingTimeout     = 30 * time.Second
)

// Client returns client, or the SDK's own for nil, with request bodies that end without an error. If client is the SDK's, it also leaves
// an HTTP/2 connection that has died silently.
//
// After sending Content-Length bytes net/http copies what is left of a body. If the answer is there already, the SDK has closed the body,
// and its WriteTo then returns io.EOF as an error. net/http takes that for a broken connection and closes it while the answer is being
// read ("use of closed network connection"). The SDK then sends the call again, although it was accepted. A body without WriteTo ends
// quietly.
//
// A call that times out ends a connection of HTTP/1.1. With HTTP/2 it ends only its stream, and the next call takes the same
// connection. If a firewall or a failed host has dropped the connection, every call times out until TCP gives up, after a quarter of an
// hour. A new client of the SDK does not help, because it shares the connections.
func Client(client aws.HTTPClient) aws.HTTPClient {
	if client == nil {
		client = awshttp.NewBuildableClient()
	}
	if sdk, ok := client.(*awshttp.BuildableClient); ok {
		client = sdk.WithTransportOptions(func(t *http.Transport) {
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: sendPingTimeout, PingTimeout: pingTimeout}
		})
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
