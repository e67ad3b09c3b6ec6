package view

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"rds-outbox-demo/lab/domain"
)

func killTheRelay(r *run) string {
	stop := r.createAllTheTime()
	defer stop()
	r.await("the first events", func(n totals) string { return missing(n.OnBus < 10, "%d of 10", n.OnBus) })
	r.step(2)
	r.switchFault("kill-relay", true)
	r.step(3)
	// Records that were on the stream already still arrive. Later ones do not.
	waiting := int64(0)
	r.await("commits that nobody reads", func(n totals) string {
		waiting = n.Committed - n.OnBus
		return missing(waiting < 100, "%d of 100", waiting)
	})
	created := stop()
	r.step(4)
	r.switchFault("kill-relay", false)
	r.step(5)
	r.arrived(created, created)
	n := r.sofar()
	return fmt.Sprintf("%d cars were created, %d of their events waited for the dead relay. %d events are on the bus and %d cars are counted: "+
		"0 lost, 0 out of order, %d duplicates suppressed.", n.Cars, waiting, n.OnBus, n.Counted, n.Suppressed)
}

// pace is the time between two requests, for the people who watch. Nothing depends on it.
const pace = 100 * time.Millisecond

// createAllTheTime creates about twenty cars a second until stop. stop returns how many cars the
// API has promised.
func (r *run) createAllTheTime() (stop func() int64) {
	ctx, cancel := context.WithCancel(r.ctx)
	created := int64(0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			const atOnce = 2
			if r.load.create(context.WithoutCancel(ctx), atOnce) == nil {
				created += atOnce
			}
			sleep(r.ctx, pace)
		}
	}()
	return func() int64 {
		cancel()
		<-ended
		return created
	}
}

func stopPostgres(r *run) string {
	promised, refused := int64(0), 0
	// create notes what the API answered.
	create := func() {
		if err := r.load.create(r.ctx, 1); err == nil {
			promised++
		} else if r.ctx.Err() == nil {
			refused++
		}
		sleep(r.ctx, pace)
	}
	const some = 20
	for range some {
		create()
	}
	r.expect(refused == 0, "%d of %d requests were refused while nothing is broken", refused, some)
	r.step(2)
	r.switchFault("stop-postgres", true)
	r.step(3)
	for refused < some && !r.over() {
		create()
	}
	r.expect(promised == some, "%d requests were answered with 201 while PostgreSQL was stopped", promised-some)
	r.step(4)
	r.switchFault("stop-postgres", false)
	for promised < 2*some && !r.over() {
		create()
	}
	r.step(5)
	r.arrived(promised, promised)
	n := r.sofar()
	r.expect(n.Cars == promised, "%d cars are there, %d were promised: a request that was answered with an error has made one", n.Cars, promised)
	return fmt.Sprintf("%d requests were answered with 201 and %d with an error. %d cars are there, %d of their events on the bus, %d counted: "+
		"0 lost, 0 out of order.", promised, refused, n.Cars, n.OnBus, n.Counted)
}

func busInTrouble(r *run) string {
	r.switchFault("bus-down", true)
	const cars, changes = 5, 9
	for range cars {
		id := r.post()
		for change := range changes {
			r.patch(id, change)
		}
	}
	r.step(2)
	r.struck("bus-down", 5)
	r.await("all of it to be committed", func(n totals) string {
		return missing(n.Committed < cars*(changes+1), "%d of %d", n.Committed, cars*(changes+1))
	})
	n := r.sofar()
	r.expect(n.OnBus == 0 && n.Parked == 0, "%d events are on the bus, which is down, and %d are parked", n.OnBus, n.Parked)
	r.step(3)
	calls := r.strikes("bus-down")
	// They are in this order, because otherwise an entry could get past both.
	r.switchFault("fail-entries", true)
	r.switchFault("bus-down", false)
	r.struck("fail-entries", 5)
	r.step(4)
	r.arrived(cars, cars*(changes+1))
	entries := r.strikes("fail-entries")
	r.switchFault("fail-entries", false)
	r.step(5)
	n = r.sofar()
	r.expect(n.Parked == 0, "%d events were parked", n.Parked)
	return fmt.Sprintf("%d calls and then %d entries failed. %d events of %d cars are on the bus, each car's in the order of its versions: "+
		"0 lost, 0 out of order, 0 parked.", calls, entries, n.OnBus, n.Cars)
}

func everythingTwice(r *run) string {
	r.switchFault("duplicate", true)
	r.step(2)
	const cars = 40
	for made := 0; made < cars && !r.over(); made += 2 {
		r.fail(r.load.create(r.ctx, 2))
		sleep(r.ctx, pace)
	}
	r.step(3)
	r.struck("duplicate", cars)
	r.step(4)
	r.arrived(cars, cars)
	// Every entry on the bus is delivered twice, also an entry that is there again because its answer was lost. All deliveries
	// but the first of each car are suppressed.
	r.await("the duplicates", func(n totals) string {
		due := cars + 2*max(1, n.Duplicates)
		return missing(n.Suppressed < due, "%d of at least %d suppressed", n.Suppressed, due)
	})
	n := r.sofar()
	return fmt.Sprintf("%d cars were created and %d are counted. Deliveries were doubled and answers lost %d times, and the subscriber suppressed "+
		"%d duplicates: 0 lost, 0 counted twice.", n.Cars, n.Counted, r.strikes("duplicate"), n.Suppressed)
}

func poisonAndNoQueue(r *run) string {
	id := r.post()
	r.switchFault("queue-down", true)
	r.arrived(1, 1)
	r.step(2)
	if !r.over() {
		r.fail(r.switches.poison(r.ctx, id))
	}
	r.step(3)
	// The first refusal proves that the consumer has met the poison before the changes are on the
	// stream.
	r.struck("queue-down", 1)
	const changes = 5
	for change := range changes {
		r.patch(id, change)
	}
	before := r.strikes("queue-down")
	r.await("the changes to be committed", func(n totals) string {
		return missing(n.Committed < 1+changes, "%d of %d", n.Committed-1, changes)
	})
	r.struck("queue-down", before+3)
	n := r.sofar()
	r.expect(n.OnBus == 1 && n.Parked == 0, "%d of %d changes overtook the poison, and %d records are parked", n.OnBus-1, changes, n.Parked)
	r.step(4)
	refused := r.strikes("queue-down")
	r.switchFault("queue-down", false)
	r.await("the poison to be parked", func(n totals) string { return missing(n.Parked < 1, "%d of 1", n.Parked) })
	r.step(5)
	r.arrived(1, 1+changes)
	n = r.sofar()
	return fmt.Sprintf("The failure queue refused %d times, and nobody passed the poison. Then %d record was parked and its %d successors are on "+
		"the bus: 0 lost, 0 out of order.", refused, n.Parked, n.OnBus-1)
}

// post creates a car and returns its id. patch changes it. Both are ordinary requests to the API.
func (r *run) post() (id string) {
	return r.send(http.MethodPost, "", domain.Create(0, "Coat 0"))
}

func (r *run) patch(id string, n int) {
	r.send(http.MethodPatch, "/"+id, domain.Change(n, fmt.Sprintf("Coat %d", n+1)))
}

func (r *run) send(method, path, body string) (id string) {
	if r.over() {
		return ""
	}
	id, err := request(r.ctx, http.DefaultClient, method, r.load.url+domain.Path+path, body)
	r.fail(err)
	return id
}
