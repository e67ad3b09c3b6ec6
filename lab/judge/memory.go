package judge

import (
	"hash/maphash"

	"github.com/google/uuid"
)

// Memory has the first arrival of each event of earlier rounds, and each of their poison payloads, as hashes. However late a duplicate
// comes, it is known. The zero value knows nothing.
type Memory struct {
	events   map[uuid.UUID]uint64 // hash of EntryText, or 0 for poison, which never arrived
	payloads map[uint64]bool
}

// Add adds a judged round.
func (m *Memory) Add(r Round) {
	if m.events == nil {
		m.events, m.payloads = map[uuid.UUID]uint64{}, map[uint64]bool{}
	}
	for _, row := range r.Rows {
		m.events[row.ID] = 0
	}
	for i := range r.Arrivals {
		if id, ok := eventID(&r.Arrivals[i]); ok && m.events[id] == 0 {
			m.events[id] = hash(EntryText(r.Arrivals[i]))
		}
	}
	for _, p := range r.Poison {
		if p.Payload != nil {
			m.payloads[hash(string(p.Payload))] = true
		}
	}
}

// Knows reports whether an event is of an earlier round.
func (m *Memory) Knows(id uuid.UUID) bool {
	_, known := m.events[id]
	return known
}

// allows reports whether an entry may come from an event that the Memory knows. Poison may look like anything.
func (m *Memory) allows(id uuid.UUID, entry string) bool {
	first := m.events[id]
	return first == 0 || first == hash(entry)
}

var seed = maphash.MakeSeed()

// hash returns a value in eight bytes.
func hash[T comparable](value T) uint64 { return maphash.Comparable(seed, value) }
