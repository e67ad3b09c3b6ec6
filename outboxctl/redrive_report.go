package outboxctl

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"rds-outbox-demo/internal/plural"
)

// messageReport is what is known of a message without its payload.
type messageReport struct {
	MessageID        string    `json:"messageId"`
	Queue            string    `json:"queue"`
	Sent             time.Time `json:"sent"`
	Reason           string    `json:"reason"`
	Error            string    `json:"error,omitempty"` // why it was parked or discarded
	EventID          string    `json:"eventId,omitempty"`
	EventType        string    `json:"eventType,omitempty"`
	AggregateType    string    `json:"aggregateType,omitempty"`
	AggregateID      string    `json:"aggregateId,omitempty"`
	AggregateVersion int64     `json:"aggregateVersion,omitempty"`
	ShardID          string    `json:"shardId,omitempty"`
	SequenceNumber   string    `json:"sequenceNumber,omitempty"`
	EndSequence      string    `json:"endSequenceNumber,omitempty"` // of discarded records
	BatchSize        int       `json:"batchSize,omitempty"`         // of discarded records
	Size             int       `json:"size,omitempty"`              // bytes of the record
	Truncated        bool      `json:"truncated,omitempty"`
	Problem          string    `json:"problem,omitempty"` // why it cannot be sent again
}

func (m *message) report() messageReport {
	r := messageReport{MessageID: m.id, Queue: m.queue, Sent: m.sent, Reason: m.reason, Problem: m.problem}
	r.ShardID, r.SequenceNumber = m.place()
	if m.reason == reasonDiscarded {
		r.Error = fmt.Sprintf("%s after %d invocations", cmp.Or(m.discarded.RequestContext.Condition, "discarded"), m.discarded.RequestContext.Invoked)
		r.EndSequence, r.BatchSize = m.discarded.Batch.End, m.discarded.Batch.Size
		return r
	}
	r.Error = strings.TrimPrefix(m.parked.ErrorCode+": "+m.parked.ErrorMessage, ": ")
	r.EventID, r.EventType = m.parked.EventID, m.parked.EventType
	r.AggregateType, r.AggregateID, r.AggregateVersion = m.parked.AggregateType, m.parked.AggregateID, m.parked.AggregateVersion
	r.Size, r.Truncated = m.parked.Size, m.parked.Truncated
	return r
}

// line says what the message is about.
func (r messageReport) line() string {
	id := cmp.Or(r.EventID, r.MessageID)
	switch {
	case r.Reason == reasonDiscarded:
		return fmt.Sprintf("%s  %-11s  %s from %s of %s  %s", id, r.Reason, plural.Of(r.BatchSize, "record"), r.SequenceNumber, r.ShardID, printable(r.Error))
	case r.EventID != "":
		return fmt.Sprintf("%s  %-11s  %s %s v%d %s  %s", id, r.Reason, printable(r.AggregateType), printable(r.AggregateID), r.AggregateVersion,
			printable(r.EventType), printable(r.Error))
	case r.SequenceNumber != "":
		return fmt.Sprintf("%s  %-11s  %d bytes at %s of %s  %s", id, r.Reason, r.Size, r.SequenceNumber, r.ShardID, printable(r.Error))
	default:
		return fmt.Sprintf("%s  %-11s", id, r.Reason)
	}
}

type redriveListing struct {
	Messages []messageReport `json:"messages"`
	Warnings []string        `json:"warnings"`
}

func (l redriveListing) text(w io.Writer) {
	for _, m := range l.Messages {
		fmt.Fprintln(w, strings.TrimRight(m.line()+"  "+printable(m.Problem), " "))
	}
	fmt.Fprintf(w, "%s\n", plural.Of(len(l.Messages), "message"))
}

// messageShown has the payload, too.
type messageShown struct {
	messageReport
	Payload []payloadReport `json:"payload"`
}

type payloadReport struct {
	SequenceNumber string `json:"sequenceNumber"`
	PartitionKey   string `json:"partitionKey"`
	Data           []byte `json:"data"` // base64
}

func newPayload(sequence, key string, data []byte) payloadReport {
	return payloadReport{SequenceNumber: sequence, PartitionKey: key, Data: data}
}

type redriveShown struct {
	Messages []messageShown `json:"messages"`
	Warnings []string       `json:"warnings"`
}

func (s redriveShown) text(w io.Writer) {
	for _, m := range s.Messages {
		for _, field := range []struct{ name, value string }{
			{"message", m.MessageID}, {"queue", m.Queue}, {"sent", m.Sent.Format(time.RFC3339)}, {"reason", m.Reason}, {"error", m.Error},
			{"event", strings.TrimSpace(m.EventID + " " + m.EventType)}, {"aggregate", aggregateOf(m.messageReport)},
			{"shard", m.ShardID}, {"sequence", strings.TrimSuffix(m.SequenceNumber+" to "+m.EndSequence, " to ")}, {"problem", m.Problem},
		} {
			if field.value != "" {
				fmt.Fprintf(w, "%-10s %s\n", field.name, printable(field.value))
			}
		}
		for _, payload := range m.Payload {
			fmt.Fprintf(w, "%-10s %s, key %s, %d bytes\n%s\n", "record", payload.SequenceNumber, printable(payload.PartitionKey), len(payload.Data),
				printable(string(payload.Data)))
		}
	}
}

func aggregateOf(m messageReport) string {
	if m.AggregateID == "" {
		return ""
	}
	return fmt.Sprintf("%s %s version %d", m.AggregateType, m.AggregateID, m.AggregateVersion)
}

type redriveOutcome struct {
	messageReport
	Records  int  `json:"records"` // that it stands for
	Redriven bool `json:"redriven"`
}

type redriveReport struct {
	DryRun   bool             `json:"dryRun"`
	Records  int              `json:"records"` // put on the stream, or to be put
	Failed   int              `json:"failed"`  // messages that stay
	Messages []redriveOutcome `json:"messages"`
	Warnings []string         `json:"warnings"`
	CameBack []messageReport  `json:"cameBack,omitempty"` // new messages about what was sent
}

func (r redriveReport) text(w io.Writer) {
	did, all := "redriven", "redriven"
	if r.DryRun {
		did, all = "would go", "dry run"
	}
	for _, m := range r.Messages {
		if m.Problem == "" {
			fmt.Fprintf(w, "%-8s  %s\n", did, m.line())
			continue
		}
		fmt.Fprintf(w, "%-8s  %s\n          %s\n", "STAYS", m.line(), printable(m.Problem))
	}
	for _, m := range r.CameBack {
		fmt.Fprintf(w, "CAME BACK %s\n          parked again at %s: mend the cause, then redrive it\n", m.line(), m.Sent.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "%s: %s of %s; %d stay", all, plural.Of(r.Records, "record"), plural.Of(len(r.Messages), "message"), r.Failed)
	if len(r.CameBack) > 0 {
		fmt.Fprintf(w, ", %d came back", len(r.CameBack))
	}
	fmt.Fprintln(w)
}

// printable keeps foreign text from moving the cursor or hiding a line, because a record may have any bytes.
func printable(s string) string {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}
