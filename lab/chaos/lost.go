package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
)

// What the bus has accepted is lost behind it. A subscriber in order holds the later versions, and asks for those that are missing. It runs
// alone, because a listener that is killed forgets the rule, and would deliver what is to be lost.
var lostTrials = []trial{{kind: "rules-lost", try: loseAndReplay, alone: true, inOrder: true}}

const (
	// lostMark in an event's data makes its delivery be lost while the trial runs.
	lostMark = "lost-"
	lostCars = 3
	// askedFor is the marker of the replays that the subscriber asks for.
	askedFor = "asked-for"
)

// loseAndReplay loses up to three versions in a row of some cars, waits until the subscriber asks for them, and does what the runbook says.
// The later version of each car is not lost, because without one nobody misses the others.
func loseAndReplay(ctx context.Context, r *round, random *rand.Rand) error {
	var cars []string
	versions := 0
	change := func(r *round, _ context.Context) error {
		for range lostCars {
			car, err := surely(ctx, func() string { return r.clients.create(ctx, "") })
			if err != nil {
				return err
			}
			lost := 1 + random.IntN(3)
			for _, mark := range append(slices.Repeat([]string{lostMark}, lost), "") {
				if _, err := surely(ctx, func() string { return r.clients.change(ctx, car, mark) }); err != nil {
					return err
				}
			}
			cars, versions = append(cars, car), versions+lost
		}
		return nil
	}
	var missing []missingVersions
	err := r.during(ctx, awslocal.Fault{Service: "rules", Kind: awslocal.Lose, Match: lostMark}, change, func(losing *ruleInForce) error {
		err := r.await(ctx, "the subscriber to ask for what is lost", func(ctx context.Context) (err error) {
			if missing, err = query[missingVersions](ctx, r, askedAbout, cars); err == nil && len(missing) < lostCars {
				err = fmt.Errorf("it has asked for %d of %d cars", len(missing), lostCars)
			}
			return err
		})
		if err != nil {
			return err
		}
		struck, err := losing.ensure(ctx)
		if err == nil && struck < versions {
			err = fmt.Errorf("%d deliveries were lost of %d versions", struck, versions)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range missing {
		_, err := operator{round: r}.run(ctx, 0, "replay", "--aggregate-type", domain.AggregateType, "--aggregate-id", m.Car,
			"--from-version", strconv.FormatInt(m.First, 10), "--to-version", strconv.FormatInt(m.Last, 10), "--replay-id", askedFor)
		if err != nil {
			return err
		}
	}
	return r.await(ctx, "the subscriber to count what was replayed",
		r.holds("SELECT NOT EXISTS (SELECT FROM inbox_held WHERE aggregate_id = ANY ($1))", cars))
}

// missingVersions are what the subscriber has asked for. Its log says the same.
type missingVersions struct {
	Car         string
	First, Last int64
}

const askedAbout = `SELECT held.aggregate_id AS car, seen.version + 1 AS first, min(held.aggregate_version) - 1 AS last
	FROM inbox_held AS held JOIN inbox_aggregate AS seen USING (subscriber, aggregate_type, aggregate_id)
	WHERE held.aggregate_id = ANY ($1) GROUP BY held.aggregate_id, seen.version HAVING count(held.asked_at) > 0`
