package view

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"rds-outbox-demo/lab/domain"
)

func killTheRelay(r *run) (string, error) {
	stop := r.createAllTheTime()
	defer stop()
	err := r.await("the first events", func(n totals) string { return missing(n.OnBus < 10, "%d of 10", n.OnBus) })
	if err != nil {
		return "", err
	}
	r.step(2)
	if err := r.switchFault("kill-relay", true); err != nil {
		return "", err
	}
	r.step(3)
	// Records that were on the stream already still arrive. Later ones do not.
	waiting := int64(0)
	err = r.await("commits that nobody reads", func(n totals) string {
		waiting = n.Committed - n.OnBus
		return missing(waiting < 100, "%d of 100", waiting)
	})
	if err != nil {
		return "", err
	}
	created := stop()
	r.step(4)
	if err := r.switchFault("kill-relay", false); err != nil {
		return "", err
	}
	r.step(5)
	if err := r.arrived(created, created); err != nil {
		return "", err
	}
	n := r.sofar()
	return fmt.Sprintf("%d cars were created, %d of their events waited for the dead relay. %d events are on the bus and %d cars are counted: "+
		"0 lost, 0 out of order, %d duplicates suppressed.", n.Cars, waiting, n.OnBus, n.Counted, n.Suppressed), nil
}

// pace is the time between two requests, for the people who watch. Nothing depends on it.
const pace = 100 * time.Millisecond

func (r *run) rest(d time.Duration) {
	select {
	case <-r.ctx.Done():
	case <-time.After(d):
	}
}

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
			if r.sees.create(context.WithoutCancel(ctx), atOnce) == nil {
				created += atOnce
			}
			r.rest(pace)
		}
	}()
	return func() int64 {
		cancel()
		<-ended
		return created
	}
}

func stopPostgres(r *run) (string, error) {
	promised, refused := int64(0), 0
	// create notes what the API answered.
	create := func() {
		if err := r.sees.create(r.ctx, 1); err == nil {
			promised++
		} else if r.ctx.Err() == nil {
			refused++
		}
		r.rest(pace)
	}
	const some = 20
	for range some {
		create()
	}
	if refused > 0 {
		return "", fmt.Errorf("%d of %d requests were refused while nothing is broken", refused, some)
	}
	r.step(2)
	if err := r.switchFault("stop-postgres", true); err != nil {
		return "", err
	}
	r.step(3)
	for refused < some && r.ctx.Err() == nil {
		create()
	}
	if promised != some {
		return "", fmt.Errorf("%d requests were answered with 201 while PostgreSQL was stopped", promised-some)
	}
	r.step(4)
	if err := r.switchFault("stop-postgres", false); err != nil {
		return "", err
	}
	for promised < 2*some && r.ctx.Err() == nil {
		create()
	}
	r.step(5)
	if err := r.arrived(promised, promised); err != nil {
		return "", err
	}
	n := r.sofar()
	if n.Cars != promised {
		return "", fmt.Errorf("%d cars are there, %d were promised: a request that was answered with an error has made one", n.Cars, promised)
	}
	return fmt.Sprintf("%d requests were answered with 201 and %d with an error. %d cars are there, %d of their events on the bus, %d counted: "+
		"0 lost, 0 out of order.", promised, refused, n.Cars, n.OnBus, n.Counted), nil
}

func busInTrouble(r *run) (string, error) {
	if err := r.switchFault("bus-down", true); err != nil {
		return "", err
	}
	const cars, changes = 5, 9
	for range cars {
		id, err := r.post()
		if err != nil {
			return "", err
		}
		for change := range changes {
			if err := r.patch(id, change); err != nil {
				return "", err
			}
		}
	}
	r.step(2)
	err := r.struck("bus-down", 5)
	if err == nil {
		err = r.await("all of it to be committed", func(n totals) string {
			return missing(n.Committed < cars*(changes+1), "%d of %d", n.Committed, cars*(changes+1))
		})
	}
	if err != nil {
		return "", err
	}
	if n := r.sofar(); n.OnBus > 0 || n.Parked > 0 {
		return "", fmt.Errorf("%d events are on the bus, which is down, and %d are parked", n.OnBus, n.Parked)
	}
	r.step(3)
	calls := r.strikes("bus-down")
	// They are in this order, because otherwise an entry could get past both.
	for _, fault := range []struct {
		name string
		on   bool
	}{{"fail-entries", true}, {"bus-down", false}} {
		if err := r.switchFault(fault.name, fault.on); err != nil {
			return "", err
		}
	}
	if err := r.struck("fail-entries", 5); err != nil {
		return "", err
	}
	r.step(4)
	if err := r.arrived(cars, cars*(changes+1)); err != nil {
		return "", err
	}
	entries := r.strikes("fail-entries")
	if err := r.switchFault("fail-entries", false); err != nil {
		return "", err
	}
	r.step(5)
	n := r.sofar()
	if n.Parked != 0 {
		return "", fmt.Errorf("%d events were parked", n.Parked)
	}
	return fmt.Sprintf("%d calls and then %d entries failed. %d events of %d cars are on the bus, each car's in the order of its versions: "+
		"0 lost, 0 out of order, 0 parked.", calls, entries, n.OnBus, n.Cars), nil
}

func everythingTwice(r *run) (string, error) {
	if err := r.switchFault("duplicate", true); err != nil {
		return "", err
	}
	r.step(2)
	const cars = 40
	for range cars / 2 {
		if err := r.sees.create(r.ctx, 2); err != nil {
			return "", err
		}
		r.rest(pace)
	}
	r.step(3)
	if err := r.struck("duplicate", cars); err != nil {
		return "", err
	}
	r.step(4)
	err := r.await("the duplicates", func(n totals) string {
		return missing(n.Suppressed < cars, "%d of at least %d suppressed", n.Suppressed, cars)
	})
	if err != nil {
		return "", err
	}
	if err := r.arrived(cars, cars); err != nil {
		return "", err
	}
	n := r.sofar()
	return fmt.Sprintf("%d cars were created and %d are counted. Deliveries were doubled and answers lost %d times, and the subscriber suppressed "+
		"%d duplicates: 0 lost, 0 counted twice.", n.Cars, n.Counted, r.strikes("duplicate"), n.Suppressed), nil
}

func poisonAndNoQueue(r *run) (string, error) {
	id, err := r.post()
	if err != nil {
		return "", err
	}
	if err := r.switchFault("queue-down", true); err != nil {
		return "", err
	}
	if err := r.arrived(1, 1); err != nil {
		return "", err
	}
	r.step(2)
	if err := r.switches.poison(r.ctx, id); err != nil {
		return "", err
	}
	r.step(3)
	// The first refusal proves that the consumer has met the poison before the changes are on the
	// stream.
	if err := r.struck("queue-down", 1); err != nil {
		return "", err
	}
	const changes = 5
	for change := range changes {
		if err := r.patch(id, change); err != nil {
			return "", err
		}
	}
	before := r.strikes("queue-down")
	err = r.await("the changes to be committed", func(n totals) string {
		return missing(n.Committed < 1+changes, "%d of %d", n.Committed-1, changes)
	})
	if err != nil {
		return "", err
	}
	if err := r.struck("queue-down", before+3); err != nil {
		return "", err
	}
	if n := r.sofar(); n.OnBus != 1 || n.Parked != 0 {
		return "", fmt.Errorf("%d of %d changes overtook the poison, and %d records are parked", n.OnBus-1, changes, n.Parked)
	}
	r.step(4)
	refused := r.strikes("queue-down")
	if err := r.switchFault("queue-down", false); err != nil {
		return "", err
	}
	err = r.await("the poison to be parked", func(n totals) string { return missing(n.Parked < 1, "%d of 1", n.Parked) })
	if err != nil {
		return "", err
	}
	r.step(5)
	if err := r.arrived(1, 1+changes); err != nil {
		return "", err
	}
	n := r.sofar()
	return fmt.Sprintf("The failure queue refused %d times, and nobody passed the poison. Then %d record was parked and its %d successors are on "+
		"the bus: 0 lost, 0 out of order.", refused, n.Parked, n.OnBus-1), nil
}

// post creates a car and returns its id. patch changes it. Both are ordinary requests to the API.
func (r *run) post() (id string, err error) {
	return request(r.ctx, http.DefaultClient, http.MethodPost, r.switches.path.APIURL+domain.Path, domain.Create(0, "Coat 0"))
}

func (r *run) patch(id string, n int) error {
	_, err := request(r.ctx, http.DefaultClient, http.MethodPatch, r.switches.path.APIURL+domain.Path+"/"+id, domain.Change(n, fmt.Sprintf("Coat %d", n+1)))
	return err
}
