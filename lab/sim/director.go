package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/walrelay"
)

// directed are the kinds that strike at their time, whatever happens.
var directed = []Kind{KillRelay, CutRelay, DropSlot, Publication, Broken, PoisonRecord, PoisonEvent}

// direct strikes the directed faults.
func (w *world) direct() {
	w.mu.Lock()
	faults := slices.Clone(w.pending)
	w.pending = slices.DeleteFunc(w.pending, func(f Fault) bool { return slices.Contains(directed, f.Kind) })
	w.mu.Unlock()
	for i, f := range faults {
		if !slices.Contains(directed, f.Kind) {
			continue
		}
		// One that is late strikes a moment after the one before it. At one instant the relay might see the first alone, or both.
		if !w.sleep(max(time.Until(w.began.Add(f.At)), w.delay(time.Microsecond, time.Millisecond, "late", i))) {
			return
		}
		for tries := range 20 { // the relay may be down
			w.mu.Lock()
			strikes := w.possible(f.Kind)
			if strikes {
				w.hit(f)
				w.directOne(f.Kind)
			}
			w.mu.Unlock()
			if strikes {
				break
			}
			if !w.sleep(w.delay(50*time.Millisecond, 150*time.Millisecond, "possible", tries)) {
				return
			}
		}
	}
}

// possible reports whether a directed fault can strike now. The caller holds mu.
func (w *world) possible(k Kind) bool {
	streams := w.wal.slot != nil && w.wal.slot.reader != nil && !w.wal.slot.reader.isCut() && w.relay != nil && !w.relay.dead
	switch k {
	case KillRelay:
		return w.relay != nil && !w.relay.dead && w.mayKillRelay()
	case CutRelay:
		// A new session looks. Only the watcher of this one may notice what nobody has noticed for long.
		return streams && (w.mayKillRelay() || time.Since(w.wal.since) < 5*time.Second)
	case DropSlot:
		return w.wal.slot != nil && w.wal.trouble == ""
	case Publication, Broken:
		return streams && w.wal.trouble == ""
	case PoisonEvent:
		return w.wal.member
	default:
	}
	return true
}

// directOne strikes. The caller holds mu.
func (w *world) directOne(k Kind) {
	switch k {
	case KillRelay:
		w.end(w.relay, "relay killed")
	case CutRelay:
		w.wal.slot.reader.cut()
	case DropSlot:
		w.dropSlot()
	case Publication:
		w.leaveOut()
	case Broken:
		w.breakWAL()
	case PoisonRecord:
		payload := fmt.Appendf(nil, "somebody else's record %d", w.draw("payload"))
		w.poison = append(w.poison, judge.Poison{Payload: payload})
		w.accept(fmt.Sprint("key-", len(w.poison)), payload)
	case PoisonEvent:
		token := fmt.Sprintf("%s-%d", poisonWord, len(w.poison))
		w.poison = append(w.poison, judge.Poison{Token: token})
		w.commit([]dbgen.Outbox{w.row(fmt.Sprint("aggregate-", w.draw("aggregate")%aggregates), fmt.Sprintf(`{"word":"%s"}`, token))})
	default:
	}
}

// mayKillRelay reports whether a kill breaks no promise. A change of the publication that is undone before another relay takes over is not
// promised to be noticed. The caller holds mu.
func (w *world) mayKillRelay() bool { return w.wal.trouble != Publication }

// leaveOut commits a row that is not published. Its aggregate has no other row, because the order of what is found later is not promised.
// The caller holds mu.
func (w *world) leaveOut() {
	w.wal.trouble, w.wal.since = Publication, time.Now()
	w.wal.identity++
	w.wal.member = false
	w.commit([]dbgen.Outbox{w.row(fmt.Sprint("left-out-", w.wal.identity), "{}")})
	time.AfterFunc(w.delay(time.Millisecond, 3*time.Second, "mended"), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wal.identity++
		w.wal.member = true
		w.note("publication mended")
	})
}

// breakWAL commits a row, and one that cannot be decoded. The caller holds mu.
func (w *world) breakWAL() {
	w.wal.trouble = Broken
	before := w.row("aggregate-0", "{}")
	w.commit([]dbgen.Outbox{before})
	w.wal.before, w.wal.beforeEnd, w.wal.exits, w.wal.calm = before.ID, w.wal.end, 0, 0
	w.commit([]dbgen.Outbox{w.row("aggregate-1", "{}")})
	w.wal.log[len(w.wal.log)-1].broken = true
}

// superviseRelay starts the relay again whenever it ends, and does what its errors ask for.
func (w *world) superviseRelay(log *slog.Logger) {
	for life := 0; ; life++ {
		if !w.sleep(w.delay(50*time.Millisecond, 1500*time.Millisecond, "restart", life)) {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		p := &process{name: "relay", gone: make(chan struct{}), kill: cancel}
		relay, err := walrelay.New(walrelay.Config{
			Database: w.login(p), Stream: "simulated", Slot: slotName, Kinesis: kinesisOf{w, p}, Log: log,
		})
		if err != nil {
			panic(err)
		}
		w.mu.Lock()
		if w.over {
			w.mu.Unlock()
			cancel()
			return
		}
		w.relay = p
		struck := len(w.struck)
		w.note("relay starts")
		w.mu.Unlock()
		err = relay.Run(ctx)
		w.mu.Lock()
		w.ended(p, fmt.Sprint("relay ends: ", err))
		cancel()
		w.mu.Unlock()
		w.sleep(w.delay(2*maxLatency, 3*maxLatency, "look")) // its last confirmation arrives
		w.mu.Lock()
		var setup *walrelay.SetupError
		if errors.As(err, &setup) {
			w.operate(len(w.struck) == struck)
		}
		over := w.over
		w.mu.Unlock()
		if over {
			return
		}
	}
}

// calmLives is after how many lives without a fault the operator drops the slot, although the relay has not confirmed what it could.
const calmLives = 2

// operate does what a person does with a relay that has stopped. calm reports whether no fault struck in its life. The caller holds mu.
func (w *world) operate(calm bool) {
	switch w.wal.trouble {
	case Broken:
		w.wal.exits++
		if calm {
			w.wal.calm++
		}
		confirmed := w.wal.slot != nil && w.wal.slot.confirmed >= w.wal.beforeEnd
		if !confirmed && w.wal.calm < calmLives {
			return
		}
		w.refusals = append(w.refusals, judge.Refusal{EventID: w.wal.before, Sessions: w.wal.exits, Confirmed: confirmed})
		w.dropSlot()
	case Publication:
		w.dropSlot()
	default:
	}
}
