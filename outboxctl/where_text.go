package outboxctl

import (
	"fmt"
	"io"
	"strings"
	"time"

	"rds-outbox-demo/internal/plural"
)

func (r namedReport) text(w io.Writer) {
	for _, event := range r.Events {
		event.text(w)
	}
	what, column := "trace "+r.TraceID, "traceparent"
	if r.AggregateID != "" {
		what, column = "aggregate "+printable(r.AggregateID), "aggregate_id"
	}
	if r.More {
		fmt.Fprintf(w, "where: only the first %d events of the %s: the others have the same %s in table outbox\n", maxNamed, what, column)
	}
	if len(r.Events) == 0 {
		fmt.Fprintf(w, "where: no row of %s: it made no event, or its rows are purged\n", what)
	}
}

// conclude says in one sentence how far the event came.
func (r *WhereReport) conclude() {
	switch {
	case len(r.Bus) > 0:
		r.LastHop, r.Says = "⑥", "on the bus"
		if len(r.Bus) > 1 {
			r.Says = fmt.Sprintf("on the bus %d times", len(r.Bus))
		}
		if len(r.Parked) > 0 {
			r.Says += ", and still in a failure queue: outboxctl redrive show " + r.EventID
		}
		for _, held := range r.Held {
			r.Says += fmt.Sprintf(", held by %s for version %d", printable(held.Subscriber), held.WaitsFor)
		}
	case len(r.Parked) > 0:
		r.LastHop, r.Says = "⑤", "parked, not on the bus: outboxctl redrive show "+r.EventID
	case len(r.Stream) > 0:
		r.LastHop, r.Says = "④", "on the stream, not on the bus: the consumer has not come to it, or it fails; outboxctl doctor tells more"
	case r.Row != nil && r.Slot != nil && !r.Slot.Exists:
		r.LastHop, r.Says = "②", "committed, not seen on the stream, and there is no slot "+r.Slot.Name+": a relay that starts makes one and sends every row"
	case r.Row != nil && !r.Read.Complete:
		r.LastHop, r.Says = "②", "committed; the stream was not read to its end: --max-records 0 reads all of it"
	case r.Row != nil:
		r.LastHop, r.Says = "②", "committed, not seen on the stream: the relay has not sent it, or the stream has forgotten it; outboxctl doctor tells more"
	default:
		r.LastHop, r.Says = "-", "nowhere: never committed, or purged and forgotten by stream and log"
	}
}

func (r *WhereReport) text(w io.Writer) { fmt.Fprint(w, r.lines()) }

// lines returns the report as text, with one line per hop, and one per repetition of a hop.
func (r *WhereReport) lines() string {
	var b strings.Builder
	line := func(sign, text string, at time.Time) {
		if at.IsZero() {
			fmt.Fprintf(&b, "%s %s\n", sign, text)
			return
		}
		fmt.Fprintf(&b, "%s %s  %s%s\n", sign, at.Format("2006-01-02T15:04:05.000Z"), text, r.since(at))
	}
	fmt.Fprintf(&b, "event %s", r.EventID)
	if r.TraceID != "" {
		fmt.Fprintf(&b, ", trace %s", r.TraceID)
	}
	b.WriteByte('\n')
	if row := r.Row; row != nil {
		line("②", fmt.Sprintf("row: %s %s v%d, %s; its transaction began then", row.AggregateType, printable(row.AggregateID), row.AggregateVersion, row.EventType), row.CreatedAt)
	} else {
		line("②", "no row: never committed, rolled back, or purged", time.Time{})
	}
	switch {
	case r.Commit != nil:
		text := "committed"
		if r.Commit.Position != "" {
			text += " at " + r.Commit.Position
		}
		if r.Commit.XID != 0 {
			text += fmt.Sprintf(", transaction %d", r.Commit.XID)
		}
		line("③", text, r.Commit.At)
	case len(r.Stream) > 0:
		line("③", "time of the commit unknown: an initial load, or a DMS task without transaction details", time.Time{})
	case r.Slot != nil && !r.Slot.Exists:
		line("③", "no slot "+r.Slot.Name, time.Time{})
	case r.Slot != nil:
		line("③", fmt.Sprintf("slot %s: %s, %s, confirmed to %s, %d bytes of WAL behind (whether the row is among them, no one can tell)", r.Slot.Name,
			map[bool]string{true: "active", false: "not active"}[r.Slot.Active], r.Slot.WALStatus, r.Slot.Confirmed, r.Slot.Behind), time.Time{})
	}
	for i, on := range r.Stream {
		text := fmt.Sprintf("%s %s, %s", on.Shard, on.Sequence, on.Operation)
		if len(r.Stream) > 1 {
			text += fmt.Sprintf(", attempt %d of %d", i+1, len(r.Stream))
		}
		if on.Replay != "" {
			text += ", " + on.Replay
		}
		if on.WrongKey != "" {
			text += fmt.Sprintf(", under partition key %q instead of its aggregate_id", on.WrongKey)
		}
		if on.OtherShard {
			text += ", not on the shard of its aggregate"
		}
		line("④", text, on.Arrived)
	}
	if len(r.Stream) == 0 {
		shards := strings.Join(r.Read.Shards, ", ")
		if len(r.Read.Shards) > 4 {
			shards = plural.Of(len(r.Read.Shards), "shard")
		}
		read := fmt.Sprintf("%s of %s since %s", plural.Of(r.Read.Records, "record"), shards, r.Read.From.Format(time.RFC3339))
		if r.Read.Complete {
			line("④", "not on the stream, among "+read, time.Time{})
		} else {
			line("④", "not on the stream so far, among the first "+read+"; --max-records 0 reads all", time.Time{})
		}
	} else if !r.Read.Complete {
		line("④", "there may be more: --max-records ended the search", time.Time{})
	}
	for _, p := range r.Parked {
		text := printable(strings.TrimSpace(fmt.Sprintf("in a failure queue: %s %s %s", p.Reason, p.ErrorCode, p.ErrorMessage)))
		line("⑤", fmt.Sprintf("%s (%s %s)", text, p.Shard, p.Sequence), p.At)
	}
	if r.Unseen {
		line("⑤", "the failure queues hold more messages than were looked at", time.Time{})
	} else if len(r.Parked) == 0 {
		line("⑤", "not in a failure queue", time.Time{})
	}
	for i, entry := range r.Bus {
		text := "on the bus, EventBridge id " + entry.BusID
		if len(r.Bus) > 1 {
			text += fmt.Sprintf(", delivery %d of %d", i+1, len(r.Bus))
		}
		if entry.Replay != "" {
			text += ", " + printable(entry.Replay)
		}
		line("⑥", text, entry.Arrived)
	}
	if len(r.Bus) == 0 {
		line("⑥", "not on the bus", time.Time{})
	}
	for _, held := range r.Held {
		line("⑥", fmt.Sprintf("held by subscriber %s, which waits for version %d", printable(held.Subscriber), held.WaitsFor), held.Since)
	}
	fmt.Fprintf(&b, "where: last hop %s: %s\n", r.LastHop, r.Says)
	return b.String()
}

// since is the time from the commit or, when that is unknown, from the beginning of the transaction.
func (r *WhereReport) since(at time.Time) string {
	var start time.Time
	var from string
	switch {
	case r.Commit != nil:
		start, from = r.Commit.At, "commit"
	case r.Row != nil:
		start, from = r.Row.CreatedAt, "begin"
	default:
		return ""
	}
	if !at.After(start) {
		return ""
	}
	return fmt.Sprintf(" (%s +%s)", from, at.Sub(start).Round(100*time.Microsecond))
}
