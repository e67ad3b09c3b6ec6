package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pglogrepl"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/judge"
)

// world is everything outside the relay and the consumer. Each change of it happens under mu, and at an instant of its own.
type world struct {
	seed  uint64
	began time.Time

	mu      sync.Mutex
	changed *sync.Cond // the WAL, the stream or the slot
	history []string
	pending []Fault // that have not struck
	struck  []Fault
	over    bool // the run ends, so that every model returns

	now   time.Time // of the latest jitter
	draws int       // of jitter at this instant

	wal      wal
	stream   stream
	relay    *process
	arrivals []awslocal.BusEvent
	parked   [][]byte
	poison   []judge.Poison
	written  []judge.Written
	refusals []judge.Refusal
}

func newWorld(s Schedule) *world {
	w := &world{seed: s.Seed, began: time.Now(), pending: append([]Fault(nil), s.Faults...)}
	w.changed = sync.NewCond(&w.mu)
	w.wal.end, w.wal.identity, w.wal.member = 0x1000000, 1, true
	w.wal.versions, w.wal.temporary = map[string]int64{}, map[*conn]pglogrepl.LSN{}
	return w
}

// draw returns a number that depends on the seed, the instant and the tags. Nothing depends on the order of calls, because goroutines
// that run at one instant have none.
func (w *world) draw(tags ...any) uint64 {
	h := sha256.New()
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w.seed)
	binary.BigEndian.PutUint64(b[8:], uint64(time.Since(w.began)))
	h.Write(b[:])
	fmt.Fprint(h, tags...)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// delay draws a time of at least from, and less than to. It has nanoseconds, so that no two things happen at one instant.
func (w *world) delay(from, to time.Duration, tags ...any) time.Duration {
	return from + time.Duration(w.draw(tags...)%uint64(to-from))
}

// jitter takes the place of jitter.Draw. Several calls at one instant come from one goroutine, so their order is fixed.
func (w *world) jitter(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Equal(w.now) {
		w.draws++
	} else {
		w.now, w.draws = now, 0
	}
	return time.Duration(w.draw("jitter", d, w.draws) % uint64(d))
}

// note writes a line of the history. The caller holds mu.
func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%14.9f ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// strike returns the first fault of the kinds that is due, and takes it away. The caller holds mu.
func (w *world) strike(kinds ...Kind) (Fault, bool) {
	for i, fault := range w.pending {
		if fault.At > time.Since(w.began) {
			break
		}
		for _, kind := range kinds {
			if fault.Kind == kind && (w.mayKillRelay() || !strings.HasPrefix(string(kind), string(KillRelay))) {
				w.pending = append(w.pending[:i:i], w.pending[i+1:]...)
				w.hit(fault)
				return fault, true
			}
		}
	}
	return Fault{}, false
}

// hit notes that a fault has struck. The caller holds mu.
func (w *world) hit(f Fault) {
	w.struck = append(w.struck, f)
	w.note("fault %s", f.Kind)
}

// id returns the UUID of an event, or of an entry on the bus.
func (w *world) id(tags ...any) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], w.draw("id", 0, fmt.Sprint(tags...)))
	binary.BigEndian.PutUint64(id[8:], w.draw("id", 1, fmt.Sprint(tags...)))
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80 // version 7
	return id
}

// sleep waits, and reports whether the run goes on.
func (w *world) sleep(d time.Duration) bool {
	time.Sleep(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.over
}

// hash is a short text that differs for different content.
func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:4])
}

// process is one life of the relay or of a consumer. After its end nothing that it does has an effect.
type process struct {
	name  string
	gone  chan struct{}
	dead  bool // guarded by world.mu
	kill  func()
	conns []*conn
}

// end kills a process. The caller holds mu.
func (w *world) end(p *process, how string) {
	if p == nil || p.dead {
		return
	}
	w.ended(p, how)
	for _, c := range p.conns {
		c.cut()
	}
	p.kill()
}

// ended notes the end of a process. What it has sent before still arrives. The caller holds mu.
func (w *world) ended(p *process, how string) {
	if !p.dead {
		w.note("%s", how)
		p.dead = true
		close(p.gone)
	}
}
