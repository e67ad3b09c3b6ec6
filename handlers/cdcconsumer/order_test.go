package cdcconsumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"pgregory.net/rapid"

	"rds-outbox-demo/outbox"
)

// TestEveryEventInOrder delivers random batches to a random bus until the stream is read, as Lambda does, and checks the rules:
// nothing is lost, the first arrivals of an aggregate are in order, at most one entry of an aggregate is unanswered, duplicates are the
// same, and poison is parked when it must be and never otherwise.
func TestEveryEventInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		// A failed assertion inside the bubble would end rapid's goroutine, so findings are collected.
		synctest.Test(t, func(*testing.T) { w.run() })
		if len(w.findings) > 0 {
			rt.Fatalf("%s\ncalls:\n%s", strings.Join(w.findings, "\n"), strings.Join(w.trace, "\n"))
		}
	})
}

// Kinds of records on the stream of a world.
const (
	kindEvent   = "event"
	kindRefused = "refused" // an event that the bus refuses by itself
	kindHuge    = "huge"    // an event that makes the bus refuse its whole call
	kindPanic   = "panic"   // an event whose decoding panics for the first times
	kindPoison  = "poison"  // not a DMS record
	kindControl = "control"
)

// source is one record on the stream.
type source struct {
	kind      string
	aggregate string
	version   int64
	panics    int      // times left to panic
	fates     []string // an error code for each of its next calls, or "" if it is accepted. Later calls accept it
}

func (s source) name() string { return fmt.Sprintf("%s/%d", s.aggregate, s.version) }

func (s source) isPoison() bool {
	return s.kind == kindPoison || s.kind == kindRefused || s.kind == kindHuge
}

// world is a stream, a bus and a failure queue with random behaviour.
type world struct {
	stream     []source
	callFates  []string // the results of the next whole calls. Later calls are all answered
	latencies  []int    // ms, in turn
	parkFates  []bool   // whether the next messages are refused
	timeouts   []int    // s, of the invocations in turn
	lanes      int
	cold       bool // nothing is known of the bus yet
	mu         sync.Mutex
	calls      int
	unanswered map[string]string // aggregate -> call
	arrivals   map[string][]int64
	details    map[string]string
	findings   []string
	trace      []string
	background sync.WaitGroup
}

func drawWorld(rt *rapid.T) *world {
	w := &world{unanswered: map[string]string{}, arrivals: map[string][]int64{}, details: map[string]string{}}
	versions := map[string]int64{}
	kinds := []string{kindEvent, kindEvent, kindEvent, kindEvent, kindEvent, kindEvent, kindRefused, kindHuge, kindPanic, kindPoison, kindControl}
	codes := []string{"InternalFailure", "ThrottlingException", "AccessDeniedException", "SomethingNew", "noresult"}
	n := rapid.IntRange(1, 40).Draw(rt, "records")
	aggregates := rapid.IntRange(1, 15).Draw(rt, "aggregates")
	for range n {
		s := source{kind: rapid.SampledFrom(kinds).Draw(rt, "kind")}
		s.aggregate = fmt.Sprint("a", rapid.IntRange(1, aggregates).Draw(rt, "aggregate"))
		versions[s.aggregate]++
		s.version = versions[s.aggregate]
		if rapid.IntRange(0, 3).Draw(rt, "troubled") == 0 {
			s.fates = rapid.SliceOfN(rapid.SampledFrom(codes), 0, 12).Draw(rt, "fates")
		}
		if s.kind == kindPanic {
			s.panics = rapid.IntRange(1, 2).Draw(rt, "panics")
		}
		w.stream = append(w.stream, s)
	}
	fates := []string{"", "", "", "", "reset", "lost", "late", "silent", "500", "throttled"}
	w.callFates = rapid.SliceOfN(rapid.SampledFrom(fates), 0, 30).Draw(rt, "callFates")
	w.latencies = rapid.SliceOfN(rapid.IntRange(0, 50), 1, 7).Draw(rt, "latencies")
	w.parkFates = rapid.SliceOfN(rapid.Bool(), 0, 10).Draw(rt, "parkFates")
	w.timeouts = rapid.SliceOfN(rapid.IntRange(1, 12), 1, 4).Draw(rt, "timeouts")
	w.lanes = rapid.IntRange(1, 4).Draw(rt, "lanes")
	w.cold = rapid.Bool().Draw(rt, "cold")
	return w
}

func (w *world) find(format string, args ...any) {
	w.findings = append(w.findings, fmt.Sprintf(format, args...))
}

// run plays the event source mapping. It delivers from the returned number on until the answer is empty.
func (w *world) run() {
	b := newBundle(panicT{}, Config{Lanes: w.lanes, CallTimeout: 2 * time.Second})
	b.put, b.send = w.put, w.send
	if w.cold {
		b.cold()
	}
	b.consumer.parse = w.parse
	whole := batch(w.records()...)
	from := 0
	for invocation := 0; from < len(whole.Records); invocation++ {
		if invocation == 500 {
			w.find("no end after %d invocations at place %d", invocation, from)
			break
		}
		alreadyParked := len(b.parked)
		timeout := time.Duration(w.timeouts[invocation%len(w.timeouts)]) * time.Second
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		response, err := b.consumer.Handle(ctx, events.KinesisEvent{Records: whole.Records[from:]})
		if ctx.Err() != nil {
			w.find("answered after the deadline of %s", timeout)
		}
		cancel()
		next := len(whole.Records)
		if len(response.BatchItemFailures) > 0 {
			next = place(whole, response.BatchItemFailures[0].ItemIdentifier)
		}
		if err != nil || len(response.BatchItemFailures) > 1 || next < from {
			w.find("answer %v, error %v", response, err)
			break
		}
		var parked []int
		for _, p := range b.parked[alreadyParked:] {
			parked = append(parked, place(whole, p.SequenceNumber))
		}
		w.checkDone(from, next, parked)
		w.trace = append(w.trace, fmt.Sprintf("-- delivered %d to %d, parked %v", from, next, parked))
		from = next
	}
	w.background.Wait() // late arrivals
	w.checkOrder()
}

func place(batch events.KinesisEvent, sequenceNumber string) int {
	return slices.IndexFunc(batch.Records, func(r events.KinesisEventRecord) bool { return r.Kinesis.SequenceNumber == sequenceNumber })
}

// checkDone checks that everything below the answer is published, parked or skipped, and that exactly its poison was parked, in order.
func (w *world) checkDone(from, next int, parked []int) {
	w.mu.Lock() // against late arrivals
	defer w.mu.Unlock()
	var poison []int
	for i, s := range w.stream[from:next] {
		switch {
		case s.isPoison():
			poison = append(poison, from+i)
		case s.kind != kindControl && !slices.Contains(w.arrivals[s.aggregate], s.version):
			w.find("place %d, %s, is lost", from+i, s.name())
		}
	}
	if !slices.Equal(poison, parked) {
		w.find("parked %v instead of %v", parked, poison)
	}
}

func (w *world) checkOrder() {
	for aggregate, versions := range w.arrivals {
		var first []int64
		for _, v := range versions {
			if !slices.Contains(first, v) {
				first = append(first, v)
			}
		}
		if !slices.IsSorted(first) {
			w.find("first arrivals of %s are %v", aggregate, first)
		}
	}
}

func (w *world) records() (records [][]byte) {
	for i, s := range w.stream {
		switch s.kind {
		case kindPoison:
			records = append(records, []byte("poison"))
		case kindControl:
			records = append(records, control)
		default:
			event := row(s.aggregate, s.version)
			event.EventType = "T" + strconv.Itoa(i) // the bus finds the source by it
			records = append(records, record(event))
		}
	}
	return records
}

func (w *world) parse(data []byte) (outbox.Record, outbox.Skip, error) {
	for i := range w.stream {
		s := &w.stream[i]
		if s.panics > 0 && bytes.Contains(data, fmt.Appendf(nil, `"T%d"`, i)) {
			s.panics--
			panic("scripted")
		}
	}
	return outbox.ParseRecord(data)
}

// put is the bus. It judges a call when it arrives, and answers later.
func (w *world) put(ctx context.Context, _ int, entries []wireEntry) (answer, error) {
	w.mu.Lock()
	w.calls++
	name := fmt.Sprint("call ", w.calls)
	fate := ""
	if len(w.callFates) > 0 {
		fate, w.callFates = w.callFates[0], w.callFates[1:]
	}
	latency := time.Duration(w.latencies[w.calls%len(w.latencies)]) * time.Millisecond
	var sources []*source
	for _, e := range entries {
		i, _ := strconv.Atoi(strings.TrimPrefix(e.DetailType, "T"))
		sources = append(sources, &w.stream[i])
		w.checkEntry(name, &w.stream[i], e)
	}
	w.trace = append(w.trace, fmt.Sprintf("%s %q %v", name, fate, names(sources)))
	w.mu.Unlock()

	defer func() { // answered, or given up by the consumer
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range sources {
			delete(w.unanswered, s.aggregate)
		}
	}()
	wait(ctx, latency)
	switch fate {
	case "reset": // never arrived
		return answer{}, errors.New("connection reset by peer")
	case "lost": // arrived, and the answer was lost
		w.judge(sources)
		return answer{}, errors.New("connection reset by peer")
	case "silent": // arrived, no answer
		w.judge(sources)
		<-ctx.Done()
		return answer{}, ctx.Err()
	case "late": // arrives after the consumer has given up
		w.background.Go(func() {
			time.Sleep(3 * time.Second)
			w.judge(sources)
		})
		<-ctx.Done()
		return answer{}, ctx.Err()
	case "500":
		return answer{status: 500, code: "InternalException"}, nil
	case "throttled":
		return answer{status: 400, code: "ThrottlingException"}, nil
	}
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	return w.judge(sources), nil
}

func (w *world) checkEntry(call string, s *source, e wireEntry) {
	if other, busy := w.unanswered[s.aggregate]; busy {
		w.find("%s carries %s while %s of its aggregate is unanswered", call, s.name(), other)
	}
	w.unanswered[s.aggregate] = call
	if before, sent := w.details[s.name()]; sent && before != e.Detail {
		w.find("%s was sent as %s and as %s", s.name(), before, e.Detail)
	}
	w.details[s.name()] = e.Detail
}

// judge accepts or refuses the entries of a call.
func (w *world) judge(sources []*source) answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(sources, func(s *source) bool { return s.kind == kindHuge }) {
		return answer{status: 413}
	}
	var codes []string
	for _, s := range sources {
		code := ""
		if len(s.fates) > 0 {
			code, s.fates = s.fates[0], s.fates[1:]
		}
		switch {
		case code == "noresult": // the answer ends here, whatever became of this entry and the rest
			return results(codes...)
		case code == "" && s.kind == kindRefused:
			code = "MalformedDetail"
		case code == "":
			w.arrivals[s.aggregate] = append(w.arrivals[s.aggregate], s.version)
		}
		codes = append(codes, code)
	}
	return results(codes...)
}

func (w *world) send(context.Context, int) answer {
	refuse := false
	if len(w.parkFates) > 0 {
		refuse, w.parkFates = w.parkFates[0], w.parkFates[1:]
	}
	if refuse {
		return answer{status: 403, code: "AccessDeniedException"}
	}
	return answer{}
}

func names(sources []*source) (all []string) {
	for _, s := range sources {
		all = append(all, s.kind+" "+s.name())
	}
	return all
}

// panicT is for setup where no *testing.T may fail.
type panicT struct{}

func (panicT) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panicT) FailNow()                          { panic("failed") }
