package carapi_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/lab/labtest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := carapi.NewServer(b.handler)
	require.NotZero(t, server.ReadHeaderTimeout)
	require.NotZero(t, server.ReadTimeout)
	require.NotZero(t, server.WriteTimeout)
	require.NotZero(t, server.IdleTimeout)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	url := "http://" + listener.Addr().String()
	send := func(t *testing.T, body io.Reader, header string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+"/cars", body)
		require.NoError(t, err)
		r.Header.Set("X-Padding", header)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}

	t.Run("Created", func(t *testing.T) {
		require.Equal(t, 201, send(t, strings.NewReader(bmw), ""))
	})
	t.Run("ChunkedBodyTooLarge", func(t *testing.T) {
		// No Content-Length: the limit is found while reading.
		endless := io.MultiReader(strings.NewReader(bmw), strings.NewReader(strings.Repeat(" ", 2<<20)))
		require.Equal(t, 413, send(t, endless, ""))
	})
	t.Run("HeaderTooLarge", func(t *testing.T) {
		require.Equal(t, 431, send(t, strings.NewReader(bmw), strings.Repeat("x", 32<<10)))
	})
	require.Equal(t, 1, b.count(t, "cars"))
}

// A slow loris: many connections, each sending a header that never ends. Each is cut off after ReadHeaderTimeout, and meanwhile
// others are served.
func TestEndlessHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := carapi.NewServer(b.handler)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	var slow []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = io.WriteString(conn, "POST /cars HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	resp, err := http.Post("http://"+listener.Addr().String()+"/cars", "application/json", strings.NewReader(bmw))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 201, resp.StatusCode)
	for _, conn := range slow {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(server.ReadHeaderTimeout+labtest.Patience)))
		_, err := io.Copy(io.Discard, conn)
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "still open")
	}
	require.Equal(t, 1, b.count(t, "cars"))
}
