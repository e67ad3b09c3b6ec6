package awslocal

import (
	"fmt"
	"time"
)

// What a program that runs the Server can see of its state and a client of AWS cannot.

// StreamRecord is a record that a stream accepted.
type StreamRecord struct {
	Stream, Shard  string
	SequenceNumber string
	Index          uint64 // 1, 2, 3 ... within the shard
	Arrival        time.Time
	PartitionKey   string
	Data           []byte
}

// ShardEnd is the newest record of a shard.
type ShardEnd struct {
	Shard string
	Index uint64 // 0: none yet
}

// ShardEnds are the ends of a stream's shards, in the order of their numbers.
func (s *Server) ShardEnds(stream string) []ShardEnd {
	s.kinesis.mu.RLock()
	found := s.kinesis.streams[stream]
	s.kinesis.mu.RUnlock()
	if found == nil {
		return nil
	}
	ends := make([]ShardEnd, 0, len(found.shards))
	for _, sh := range found.shards {
		ends = append(ends, ShardEnd{Shard: sh.id, Index: sh.log.end() - 1})
	}
	return ends
}

// SequenceIndex is the place within its shard that a sequence number of this package tells.
func SequenceIndex(sequenceNumber string) (uint64, bool) {
	seq, ok := parseSequence(sequenceNumber)
	return seq.index, ok
}

// ReadQueue calls fn for every message in the queue with this URL, without receiving any of them. Their
// visibility and their receive counts stay as they are.
func (s *Server) ReadQueue(queueURL string, fn func(id, body string, sent time.Time)) error {
	q, err := s.sqs.find(queueURL)
	if err != nil {
		return fmt.Errorf("awslocal: reading %s: %w", queueURL, err)
	}
	all, err := q.all()
	for _, m := range all {
		fn(m.ID, m.Body, time.UnixMilli(m.Sent))
	}
	return err
}

func (q *queue) all() ([]*sentMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []*sentMessage
	for _, m := range q.messages {
		if q.byID[m.id] == nil {
			continue
		}
		sent, err := q.read(m)
		if err != nil {
			return nil, err
		}
		all = append(all, sent)
	}
	return all, nil
}
