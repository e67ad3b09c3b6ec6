package outboxctl

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"rds-outbox-demo/handlers/cdcconsumer"
)

// Reasons besides those of cdcconsumer.
const (
	reasonDiscarded  = "discarded"  // Lambda gave the records up and tells where they are
	reasonUnreadable = "unreadable" // not a message of ours
)

// message is one in the failure or the discard queue.
type message struct {
	id, queue, handle string
	sent              time.Time
	reason            string
	parked            cdcconsumer.ParkedRecord // of ours
	discarded         discarded                // Lambda's on-failure message
	problem           string                   // why it is unreadable
}

// discarded is Lambda's message about records that it gave up. It says where they are, and not what they are.
type discarded struct {
	RequestContext struct {
		Condition string `json:"condition"`
		Invoked   int    `json:"approximateInvokeCount"`
	} `json:"requestContext"`
	Batch batchInfo `json:"KinesisBatchInfo"`
}

type batchInfo struct {
	ShardID   string    `json:"shardId"`
	Start     string    `json:"startSequenceNumber"`
	End       string    `json:"endSequenceNumber"`
	First     time.Time `json:"approximateArrivalOfFirstRecord"`
	Last      time.Time `json:"approximateArrivalOfLastRecord"`
	Size      int       `json:"batchSize"`
	StreamARN string    `json:"streamArn"`
}

// decode reads the body. It recognises both kinds of message in either queue, because the two queues may be one.
func (m *message) decode(body string) {
	if err := json.Unmarshal([]byte(body), &m.discarded); err == nil && m.discarded.Batch.Start != "" && m.discarded.Batch.End != "" {
		m.reason = reasonDiscarded
		return
	}
	err := json.Unmarshal([]byte(body), &m.parked)
	if err == nil && m.parked.Reason != "" && m.parked.SequenceNumber != "" {
		m.reason = string(m.parked.Reason)
		return
	}
	m.reason, m.problem = reasonUnreadable, "neither a parked record nor an on-failure message of Lambda"
	if err != nil {
		m.problem += ": " + err.Error()
	}
}

// place is where the message's record, or its first one, is on the stream.
func (m *message) place() (shard, sequence string) {
	if m.reason == reasonDiscarded {
		return m.discarded.Batch.ShardID, m.discarded.Batch.Start
	}
	return m.parked.ShardID, m.parked.SequenceNumber
}

// has reports whether id is the message's, or its event's.
func (m *message) has(id string) bool {
	return m.id == id || m.parked.EventID != "" && strings.EqualFold(m.parked.EventID, id)
}

// comparePlaces orders by shard and sequence number. A shard's children have higher ids. A sequence number is a decimal number of
// up to 128 digits (API reference of GetShardIterator), so a longer one is higher.
func comparePlaces(shardA, sequenceA, shardB, sequenceB string) int {
	return cmp.Or(cmp.Compare(shardA, shardB), cmp.Compare(len(sequenceA), len(sequenceB)), cmp.Compare(sequenceA, sequenceB))
}
