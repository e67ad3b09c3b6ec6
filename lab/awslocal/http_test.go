package awslocal_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

func TestRequestsOfWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{Streams: oneShard("s")})
	for name, tc := range map[string]struct {
		host, origin string
		status       int
	}{
		"LoopbackIsServed":      {"127.0.0.1:1", "", http.StatusOK},
		"LocalhostIsServed":     {"localhost", "", http.StatusOK},
		"IPv6IsServed":          {"[::1]:4566", "", http.StatusOK},
		"IPv6AloneIsServed":     {"[::1]", "", http.StatusOK},
		"ForeignHostIsRefused":  {"evil.example:4566", "", http.StatusForbidden},
		"LookalikeIsRefused":    {"127.0.0.1.evil.example", "", http.StatusForbidden},
		"AnyOriginIsRefused":    {"127.0.0.1:1", "http://localhost:3000", http.StatusForbidden},
		"OpaqueOriginIsRefused": {"127.0.0.1:1", "null", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *cfg.BaseEndpoint, strings.NewReader(`{"StreamName":"s"}`))
			require.NoError(t, err)
			r.Host = tc.host
			r.Header.Set("X-Amz-Target", "Kinesis_20131202.DescribeStreamSummary")
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, tc.status, resp.StatusCode)
		})
	}
}

func TestProtocolErrors(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{Streams: oneShard("s")})
	for name, tc := range map[string]struct {
		method, target, body string
		status               int
		answer               string
	}{
		"UnknownOperation": {"POST", "Kinesis_20131202.MergeShards", "{}", 400, `{"__type":"UnknownOperationException"}`},
		"UnknownService":   {"POST", "DynamoDB_20120810.PutItem", "{}", 400, `{"__type":"UnknownOperationException"}`},
		"NoTarget":         {"POST", "", "{}", 400, `{"__type":"UnknownOperationException"}`},
		"Get":              {"GET", "Kinesis_20131202.ListShards", "", 400, `{"__type":"UnknownOperationException"}`},
		"BadJSON":          {"POST", "Kinesis_20131202.ListShards", "{", 400, `{"__type":"SerializationException","message":"unexpected end of JSON input"}`},
		"TooLarge":         {"POST", "Kinesis_20131202.PutRecords", strings.Repeat(" ", 16<<20+1), 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), tc.method, *cfg.BaseEndpoint, strings.NewReader(tc.body))
			require.NoError(t, err)
			r.Header.Set("X-Amz-Target", tc.target)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, tc.status, resp.StatusCode)
			require.NotEmpty(t, resp.Header.Get("X-Amzn-Requestid"))
			if tc.answer == "" {
				require.Empty(t, body)
				return
			}
			require.JSONEq(t, tc.answer, string(body))
		})
	}
}

func TestSDKSeesUnknownOperation(t *testing.T) {
	t.Parallel()
	_, cfg := start(t, awslocal.Config{})
	_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), &kinesis.ListStreamsInput{})
	require.Equal(t, "UnknownOperationException", code(t, err))
	_, err = sqs.NewFromConfig(cfg).PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: aws.String("q")})
	require.Equal(t, "UnknownOperationException", code(t, err))
}

func TestCloseLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	server, cfg := start(t, awslocal.Config{Streams: oneShard("s")})
	held := server.Faults().Add(awslocal.Fault{Operation: "PutRecord", Kind: awslocal.Delay, Delay: time.Hour})
	answered := make(chan error)
	go func() {
		_, err := kinesis.NewFromConfig(cfg).PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("s"), PartitionKey: aws.String("k"), Data: []byte("x")})
		answered <- err
	}()
	labtest.Eventually(t, "the held call", func() bool { return held.Struck() == 1 })
	require.NoError(t, server.Close())
	require.NoError(t, <-answered)
}

func TestClosedServerAnswers503(t *testing.T) {
	t.Parallel()
	server, cfg := start(t, awslocal.Config{Streams: oneShard("s")})
	require.NoError(t, server.Close())
	_, err := kinesis.NewFromConfig(cfg).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("s")})
	require.Equal(t, 503, status(err))
}
