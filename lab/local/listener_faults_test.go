package local

import (
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

// startListener runs the listener until the test ends.
func startListener(t *testing.T, standing ...awslocal.Fault) (FaultClient, *eventbridge.Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	config := AWSConfig{Dir: filepath.Join(t.TempDir(), "aws"), Stream: "stream", Bus: "bus", Settings: ForChaos(), Standing: standing, Log: slog.New(slog.DiscardHandler)}
	config.server, err = config.open()
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx := t.Context() // ends before the cleanups
	go func() {
		ended <- config.run(ctx, listener)
	}()
	t.Cleanup(func() { require.NoError(t, <-ended) })
	url := "http://" + listener.Addr().String()
	return FaultClient{URL: url}, eventbridge.NewFromConfig(awslocal.SDKConfig(url))
}

func put(t *testing.T, bus *eventbridge.Client, detail string) string {
	t.Helper()
	out, err := bus.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{
		EventBusName: aws.String("bus"), Source: aws.String("outbox.car"), DetailType: aws.String("CarCreated"), Detail: &detail,
	}}})
	require.NoError(t, err)
	return aws.ToString(out.Entries[0].ErrorCode)
}

func TestFaultIsSwitchedFromAnotherProcess(t *testing.T) {
	t.Parallel()
	faults, bus := startListener(t)
	const id = "42"
	fault := awslocal.Fault{Service: "events", Kind: awslocal.EntryError, Code: "InternalFailure"}
	require.NoError(t, faults.On(t.Context(), id, fault))
	struck, err := faults.Struck(t.Context(), id)
	require.NoError(t, err)
	require.Zero(t, struck)

	require.Equal(t, "InternalFailure", put(t, bus, `{}`))
	struck, err = faults.Struck(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 1, struck)
	require.NoError(t, faults.On(t.Context(), id, fault), "an answer may have been lost")

	require.NoError(t, faults.Off(t.Context(), id))
	require.Empty(t, put(t, bus, `{}`), "it was on once")
	require.NoError(t, faults.Off(t.Context(), "unknown"))
	_, err = faults.Struck(t.Context(), "unknown")
	require.ErrorIs(t, err, ErrNoFault)
	require.ErrorContains(t, faults.On(t.Context(), "1", awslocal.Fault{Kind: awslocal.EntryError}), "Code is empty")
}

func TestStandingFaultIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	_, bus := startListener(t, awslocal.Fault{Service: "events", Match: "poison-", Kind: awslocal.EntryError, Code: "MalformedDetail"})
	require.Equal(t, "MalformedDetail", put(t, bus, `{"color":"poison-1"}`))
	require.Empty(t, put(t, bus, `{"color":"red"}`))
}

func TestWebPagesSwitchNothing(t *testing.T) {
	t.Parallel()
	faults, _ := startListener(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, faults.URL+FaultPath+"1", strings.NewReader(`{"Kind":"reset"}`))
	require.NoError(t, err)
	request.Header.Set("Origin", "https://example.com")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}
