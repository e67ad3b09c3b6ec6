// Package sink answers calls of Kinesis and EventBridge and keeps nothing, so that a measurement
// against it measures the caller alone.
package sink

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

// Server is a stream and a bus that accept everything.
type Server struct {
	URL      string
	Accepted atomic.Int64 // records and entries
	Calls    atomic.Int64 // that carried them

	server *http.Server
	delay  time.Duration
	// buffers are used again. The sink shares the machine with what is measured, and its garbage took as much CPU as the relay.
	buffers sync.Pool
}

// PutEvents is the X-Amz-Target of a call to the bus.
const PutEvents = "AWSEvents.PutEvents"

// operation is a call that carries several items.
type operation struct {
	item   []byte // is in the call once for each item. Inside of a string its quotes are escaped.
	failed string // member of the answer
	list   string // member of the answer
	result string // of one item
}

var putRecords = operation{[]byte(`"PartitionKey":`), "FailedRecordCount", "Records",
	`{"SequenceNumber":"49590338271490256608559692538361571095921575989136588898","ShardId":"shardId-000000000000"}`}

var operations = map[string]operation{
	"Kinesis_20131202.PutRecords": putRecords,
	"Kinesis_20131202.PutRecord":  putRecords, // clients ignore the members that only the other answer has
	PutEvents:                     {[]byte(`"DetailType":`), "FailedEntryCount", "Entries", `{"EventId":"11710aed-b79e-4468-a20b-bb3c0c3b4860"}`},
}

// Start listens on 127.0.0.1. A call takes delay, which may be 0. The caller must Close the server.
func Start(delay time.Duration) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &Server{URL: "http://" + listener.Addr().String(), delay: delay, buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	s.server = &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

// Close ends the server. It may be called again.
func (s *Server) Close() { _ = s.server.Close() }

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	operation, known := operations[r.Header.Get("X-Amz-Target")]
	if !known { // DescribeStreamSummary and DescribeEventBus
		_, _ = io.WriteString(w, `{"Name":"bench","StreamDescriptionSummary":{"StreamName":"bench","StreamStatus":"ACTIVE","OpenShardCount":1,"RetentionPeriodHours":24}}`)
		return
	}
	buffer := s.buffers.Get().(*bytes.Buffer)
	defer s.buffers.Put(buffer)
	buffer.Reset()
	_, _ = buffer.ReadFrom(r.Body)
	n := bytes.Count(buffer.Bytes(), operation.item)
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	buffer.Reset()
	fmt.Fprintf(buffer, `{%q:0,%q:[`, operation.failed, operation.list)
	for i := range n {
		if i > 0 {
			buffer.WriteByte(',')
		}
		buffer.WriteString(operation.result)
	}
	buffer.WriteString("]}")
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	_, _ = w.Write(buffer.Bytes())
	s.Calls.Add(1)
	s.Accepted.Add(int64(n))
}
