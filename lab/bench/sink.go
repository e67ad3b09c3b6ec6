package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// sink is a Kinesis stream that answers at once and keeps nothing: what is measured against it is the relay alone.
type sink struct {
	url     string
	records atomic.Int64
	server  *http.Server
	// delay is what a call takes, for what depends on round trips.
	delay time.Duration
	// calls keeps what calls need: the sink shares the machine with what is measured, and its garbage took as much CPU as the relay's.
	calls sync.Pool
}

type sinkCall struct{ body, answer bytes.Buffer }

var partitionKey = []byte(`"PartitionKey":`)

func newSink(delay time.Duration) (*sink, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &sink{url: "http://" + listener.Addr().String(), delay: delay, calls: sync.Pool{New: func() any { return new(sinkCall) }}}
	s.server = &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *sink) close() { _ = s.server.Close() }

func (s *sink) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if r.Header.Get("X-Amz-Target") != "Kinesis_20131202.PutRecords" {
		_, _ = io.WriteString(w, `{"StreamDescriptionSummary":{"StreamName":"bench","StreamStatus":"ACTIVE","OpenShardCount":1,"RetentionPeriodHours":24}}`)
		return
	}
	call := s.calls.Get().(*sinkCall)
	defer s.calls.Put(call)
	call.body.Reset()
	_, _ = call.body.ReadFrom(r.Body)
	n := bytes.Count(call.body.Bytes(), partitionKey)
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	out := &call.answer
	out.Reset()
	out.WriteString(`{"FailedRecordCount":0,"Records":[`)
	for i := range n {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`{"SequenceNumber":"49590338271490256608559692538361571095921575989136588898","ShardId":"shardId-000000000000"}`)
	}
	out.WriteString("]}")
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	_, _ = w.Write(out.Bytes())
	s.records.Add(int64(n))
}
