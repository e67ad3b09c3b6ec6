package view

import (
	"math"
	"time"
)

const (
	meterSlot  = 100 * time.Millisecond
	meterSlots = 20
)

// meter measures a rate over the last two seconds, and a sum. Its owner's lock guards it.
type meter struct {
	slots [meterSlots]int64
	slot  int64 // number of the newest
	total int64
}

// reading is a meter at one moment.
type reading struct {
	rate   float64 // per second, with one decimal
	recent int64   // in the last two seconds
	total  int64
}

func (m *meter) turn(now time.Time) {
	slot := now.UnixNano() / int64(meterSlot)
	for i := max(m.slot+1, slot-meterSlots+1); i <= slot; i++ {
		m.slots[i%meterSlots] = 0
	}
	m.slot = max(m.slot, slot)
}

func (m *meter) add(now time.Time, n int) {
	m.turn(now)
	m.slots[m.slot%meterSlots] += int64(n)
	m.total += int64(n)
}

func (m *meter) read(now time.Time) reading {
	m.turn(now)
	p := reading{total: m.total}
	for _, n := range m.slots {
		p.recent += n
	}
	p.rate = math.Round(float64(p.recent)*10/(meterSlots*meterSlot.Seconds())) / 10
	return p
}
