package walrelay

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/labtest"
)

// The request that is sent equals the SDK's in target, headers and signature (over another spelling of the
// same body).
func TestProtocolSendsWhatTheSDKWould(t *testing.T) {
	t.Parallel()
	type request struct {
		body    map[string]any
		headers http.Header
	}
	var got request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = request{headers: r.Header}
		if int64(len(body)) != r.ContentLength || json.Unmarshal(body, &got.body) != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, `{"FailedRecordCount":0,"Records":[]}`)
	}))
	t.Cleanup(server.Close)
	client := kinesis.New(kinesis.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	text := rapid.OneOf(rapid.StringMatching(`[a-z"\\<>&\x00-\x1f€]{1,20}`), rapid.StringN(1, 50, -1))
	rapid.Check(t, func(t *rapid.T) {
		input := &kinesis.PutRecordsInput{StreamName: aws.String(text.Draw(t, "stream"))}
		for range rapid.IntRange(1, 5).Draw(t, "records") {
			input.Records = append(input.Records, types.PutRecordsRequestEntry{
				Data: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data"), PartitionKey: aws.String(text.Draw(t, "key")),
			})
		}
		_, err := client.PutRecords(t.Context(), input)
		require.NoError(t, err)
		want := got
		_, err = client.PutRecords(t.Context(), input, func(o *kinesis.Options) { o.Protocol = protocol{o.Protocol} })
		require.NoError(t, err)
		require.Equal(t, want.body, got.body)
		for _, name := range []string{"X-Amz-Target", "Content-Type"} {
			require.Equal(t, want.headers.Get(name), got.headers.Get(name))
		}
		require.Contains(t, got.headers.Get("Authorization"), "SignedHeaders=")
	})
}

// quickServer answers as soon as it has Content-Length bytes.
type quickServer struct{ body io.Reader }

func (a *quickServer) Do(r *http.Request) (*http.Response, error) {
	a.body = r.Body
	_, err := io.CopyN(io.Discard, r.Body, r.ContentLength)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"Records":[]}`))}, err
}

// net/http copies what is left of a body when it has sent Content-Length bytes. A fast server has
// answered by then, and the SDK has closed the body. If the copy fails, net/http closes the
// connection on which the answer arrives. The relay then sends accepted records again.
func TestTheBodyEndsQuietlyAfterTheAnswer(t *testing.T) {
	t.Parallel()
	transport := &quickServer{}
	client := kinesis.New(kinesis.Options{
		Region: "eu-west-1", HTTPClient: transport, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	_, err := client.PutRecords(t.Context(), &kinesis.PutRecordsInput{
		StreamName: aws.String("outbox"), Records: []types.PutRecordsRequestEntry{{Data: []byte("{}"), PartitionKey: aws.String("key")}},
	}, func(o *kinesis.Options) { o.Protocol = protocol{o.Protocol} })
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, transport.body)
	require.NoError(t, err)
}

func BenchmarkPutBody(b *testing.B) {
	input := &kinesis.PutRecordsInput{StreamName: aws.String("outbox")}
	for range maxPutRecords {
		input.Records = append(input.Records, types.PutRecordsRequestEntry{Data: make([]byte, 1000), PartitionKey: aws.String("01a2078f-bf24-71b1-b2f2-61ef9d22b781")})
	}
	defer labtest.AllocsAtMost(b, 2)()
	for b.Loop() {
		if _, err := putBody(input); err != nil {
			b.Fatal(err)
		}
	}
}
