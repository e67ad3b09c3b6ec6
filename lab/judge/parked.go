package judge

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
)

// cutBytes is how much is at least parked of a record that does not fit a message whole.
const cutBytes = 64 << 10

// parkedRecord is what the judge needs of a message in the failure queue.
type parkedRecord struct {
	SequenceNumber string `json:"sequenceNumber"`
	Reason         string `json:"reason"`
	ErrorMessage   string `json:"errorMessage"`
	EventID        string `json:"eventId"`
	Data           []byte `json:"data"`
	Size           int    `json:"size"`
	Truncated      bool   `json:"truncated"`
}

// carries reports whether the record was parked with its whole payload, or with as much of it as a message takes.
func (p *parkedRecord) carries(payload string) bool {
	if p.Truncated {
		return p.Size == len(payload) && len(p.Data) >= min(cutBytes, len(payload)) && strings.HasPrefix(payload, string(p.Data))
	}
	return p.Size == len(payload) && string(p.Data) == payload
}

func (t *trial) isPoison(row Row) bool {
	for _, p := range t.Poison {
		if p.Token != "" && hasToken(row.Data, []byte(p.Token)) {
			return true
		}
	}
	return false
}

// hasToken reports whether the token stands in the text as a whole word. poison-1 is not in poison-12.
func hasToken(text, token []byte) bool {
	for {
		i := bytes.Index(text, token)
		if i < 0 {
			return false
		}
		end := i + len(token)
		if (i == 0 || !inToken(text[i-1])) && (end == len(text) || !inToken(text[end])) {
			return true
		}
		text = text[end:]
	}
}

func inToken(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// judgeParked holds the failure queue against the poison, in both directions. A record may be parked twice, because delivery to the failure
// queue is at least once, too.
func (t *trial) judgeParked() {
	raw := map[string]bool{} // payload -> found
	for _, p := range t.Poison {
		if p.Payload != nil {
			raw[string(p.Payload)] = false
		}
	}
	var unmatched []parkedRecord
	for _, body := range t.Round.Parked {
		var p parkedRecord
		if err := json.Unmarshal(body, &p); err != nil || p.SequenceNumber == "" {
			t.violation(RuleParked, "a message in the failure queue is no parked record: %.200q", body)
			continue
		}
		if !found(raw, &p) && !t.judgeParkedEvent(&p) && !t.Earlier.payloads[hash(string(p.Data))] {
			unmatched = append(unmatched, p)
		}
	}
	// What is left may be a piece of poison that is missing.
	for _, p := range unmatched {
		if payload, ok := pieceOf(raw, &p); ok {
			raw[payload] = true
			t.violation(RulePoisonPayload, "record %s is parked with %d bytes (size %d), put were %d: %.80q", p.SequenceNumber, len(p.Data), p.Size, len(payload), payload)
			continue
		}
		t.violation(RuleParked, "record %s is parked as %s (%s), and it is no poison: %.200q", p.SequenceNumber, p.Reason, p.ErrorMessage, p.Data)
	}

	for _, p := range t.Poison {
		if p.Payload == nil {
			continue
		}
		if !raw[string(p.Payload)] {
			t.violation(RulePoisonLost, "a poison record of %d bytes is not in the failure queue: %.80q", len(p.Payload), p.Payload)
			continue
		}
		t.Verdict.Parked++
	}
	for _, e := range t.events {
		switch {
		case e.poison && e.parked:
			t.Verdict.Parked++
		case e.poison && !e.rolledBack:
			t.violation(RulePoisonLost, "%s is poison and not in the failure queue", e)
		}
	}
}

func found(raw map[string]bool, p *parkedRecord) bool {
	for payload := range raw {
		if p.carries(payload) {
			raw[payload] = true
			return true
		}
	}
	return false
}

// pieceOf finds the missing poison that a damaged record comes from. It is the one with the longest common beginning, if that is at least
// half of the record.
func pieceOf(raw map[string]bool, p *parkedRecord) (string, bool) {
	best, length := "", 0
	for payload, found := range raw {
		n := 0
		for n < min(len(payload), len(p.Data)) && payload[n] == p.Data[n] {
			n++
		}
		if !found && (n > length || n == length && n > 0 && payload < best) {
			best, length = payload, n
		}
	}
	return best, length > 0 && 2*length >= len(p.Data)
}

// judgeParkedEvent judges a parked record that names an event. It returns false if no such event is known.
func (t *trial) judgeParkedEvent(p *parkedRecord) bool {
	id, err := uuid.Parse(p.EventID)
	if err != nil {
		return false
	}
	e := t.byID[id]
	if e == nil {
		return t.Earlier.Knows(id)
	}
	e.parked = true
	switch {
	case !e.poison:
		t.violation(RuleParked, "%s is parked as %s (%s), and it is no poison", e, p.Reason, p.ErrorMessage)
	case !recordOf(e.Row, p):
		t.violation(RulePoisonPayload, "%s is parked with another payload (%d bytes, truncated %t): %.200q", e, p.Size, p.Truncated, p.Data)
	}
	return true
}

// recordOf reports whether the payload is the stream's record of the row. Its event_data is a JSON string, or an object.
func recordOf(row Row, p *parkedRecord) bool {
	var record struct {
		Data struct {
			ID            uuid.UUID       `json:"id"`
			AggregateType string          `json:"aggregate_type"`
			AggregateID   string          `json:"aggregate_id"`
			Version       int64           `json:"aggregate_version"`
			EventType     string          `json:"event_type"`
			EventData     json.RawMessage `json:"event_data"`
		} `json:"data"`
	}
	if p.Size != len(p.Data) || json.Unmarshal(p.Data, &record) != nil {
		return false
	}
	data := record.Data
	var text string
	if json.Unmarshal(data.EventData, &text) == nil {
		data.EventData = json.RawMessage(text)
	}
	return data.ID == row.ID && data.AggregateType == row.AggregateType && data.AggregateID == row.AggregateID &&
		data.Version == row.Version && data.EventType == row.EventType && sameJSON(data.EventData, row.Data)
}
