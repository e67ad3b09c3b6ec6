package sdkhttp_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sdkhttp"
)

// quickServer answers as soon as it has Content-Length bytes.
type quickServer struct{ body io.Reader }

func (s *quickServer) Do(r *http.Request) (*http.Response, error) {
	s.body = r.Body
	_, err := io.CopyN(io.Discard, r.Body, r.ContentLength)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"Entries":[]}`))}, err
}

// net/http copies what is left of a body after an answer, and closes the connection if that fails.
func TestABodyEndsQuietlyAfterTheAnswer(t *testing.T) {
	t.Parallel()
	rest := func(client aws.HTTPClient, server *quickServer) error {
		events := eventbridge.New(eventbridge.Options{
			Region: "eu-west-1", HTTPClient: client, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		})
		_, err := events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{Detail: aws.String("{}")}}})
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, server.body)
		return err
	}
	bare, quiet := &quickServer{}, &quickServer{}
	require.Error(t, rest(bare, bare), "the SDK is mended: this package can go")
	require.NoError(t, rest(sdkhttp.Client(quiet), quiet))
	require.NotNil(t, sdkhttp.Client(nil))
}
