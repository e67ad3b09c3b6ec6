// Package awstest runs the local AWS listener for one test. In: what should exist. Out: the server
// and a configuration for the SDK's clients.
package awstest

import (
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"rds-outbox-demo/lab/awslocal"
)

// Start opens conf, in a folder of the test unless Dir is set, and serves it on a free port of 127.0.0.1 until the test ends. The
// endpoint is the configuration's BaseEndpoint.
func Start(t testing.TB, conf awslocal.Config) (*awslocal.Server, aws.Config) {
	t.Helper()
	if conf.Dir == "" {
		conf.Dir = t.TempDir()
	}
	server, err := awslocal.Open(conf)
	if err != nil {
		t.Fatalf("opening the local AWS listener: %v", err)
	}
	listener := httptest.NewServer(server)
	t.Cleanup(func() {
		// Close the server first, because it releases the clients for whom the listener would wait.
		if err := server.Close(); err != nil {
			t.Errorf("closing the local AWS listener: %v", err)
		}
		listener.Close()
	})
	return server, awslocal.SDKConfig(listener.URL)
}
