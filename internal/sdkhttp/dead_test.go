package sdkhttp_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sdkhttp"
)

// pipes is a network in memory, so that the clock of synctest counts.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int32
	latest *vanishing
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accept:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.dials.Add(1)
	p.latest = &vanishing{Conn: ours}
	p.accept <- theirs
	return p.latest, nil
}

// vanishing is a connection whose packets are dropped once it is gone. Nothing ends it.
type vanishing struct {
	net.Conn
	gone    atomic.Bool
	dropped atomic.Int32 // writes
}

func (c *vanishing) Write(b []byte) (int, error) {
	if c.gone.Load() {
		c.dropped.Add(1)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A firewall that forgets a connection, or a host that fails, sends no FIN and no RST.
func TestAConnectionThatDiedSilentlyIsLeft(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var protocol atomic.Value
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					protocol.Store(r.Proto)
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Type", "application/x-amz-json-1.1")
					_, _ = io.WriteString(w, `{"FailedRecordCount":0,"Records":[{"SequenceNumber":"1","ShardId":"shardId-000000000000"}]}`)
				}))
				require.NoError(t, server.Listener.Close())
				network := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
				server.Listener, server.EnableHTTP2 = network, http2
				server.StartTLS()
				defer server.Close()
				roots := x509.NewCertPool()
				roots.AddCert(server.Certificate())
				var transport *http.Transport
				sdk := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
					t.DialContext, t.TLSClientConfig.RootCAs = network.dial, roots
					transport = t
				})
				client := kinesis.New(kinesis.Options{
					Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
					BaseEndpoint: &server.URL, Retryer: aws.NopRetryer{}, HTTPClient: sdkhttp.Client(sdk),
				})
				put := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					_, err := client.PutRecords(ctx, &kinesis.PutRecordsInput{
						StreamName: aws.String("s"), Records: []types.PutRecordsRequestEntry{{Data: []byte("x"), PartitionKey: aws.String("k")}},
					})
					return err
				}
				require.NoError(t, put())
				require.Equal(t, name, protocol.Load())
				require.EqualValues(t, 1, network.dials.Load())
				dead := network.latest
				defer func() { _ = dead.Close() }()
				dead.gone.Store(true)
				died := time.Now()
				require.ErrorIs(t, put(), context.DeadlineExceeded)
				require.NotZero(t, dead.dropped.Load())
				var err error
				for err = errors.New("none"); err != nil && time.Since(died) < 10*time.Minute; {
					err = put()
				}
				require.NoError(t, err, "ten minutes later the calls still go out on the dead connection")
				require.LessOrEqual(t, time.Since(died), time.Minute)
				require.EqualValues(t, 2, network.dials.Load())
				transport.CloseIdleConnections()
				_ = network.latest.Close()
			})
		})
	}
}

func TestEveryProgramOfThePathHasThisClient(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"walrelay/cmd/walrelay/main.go", "outboxctl/cmd/outboxctl/environment.go", "handlers/cdcconsumer/lambda/main.go",
		"handlers/canary/lambda/main.go", "handlers/retention/lambda/main.go", "handlers/carstats/lambda/main.go",
	} {
		source, err := os.ReadFile("../../" + path)
		require.NoError(t, err)
		require.Regexp(t, `(?s)config\.LoadDefaultConfig\(.*\.HTTPClient = sdkhttp\.Client\(`, string(source), path)
	}
}
