package outbox

import (
	"context"
	"fmt"

	"rds-outbox-demo/dbgen"
)

// PromotionProblem is why the promotion of a standby would harm the path.
type PromotionProblem struct {
	Finding, Remedy string
	// Stalls reports whether the problem holds the relay up now, not only after a promotion.
	Stalls bool
}

// The findings begin with what they mean.
const (
	slotGoes = "this slot will not survive a promotion: "
	orphans  = "after a promotion the bus may have events whose transaction is gone: "
	stalls   = "the relay waits for a standby: "
)

// LookAtPromotion finds out what the promotion of a standby would do to a slot. The server may be the primary or the standby. A primary
// sees only part of it, because the settings of a standby are on the standby. It finds nothing on a primary without a standby. It does
// not see the standby of an RDS Multi-AZ instance. The error is PostgreSQL's.
func LookAtPromotion(ctx context.Context, db dbgen.DBTX, slot string) ([]PromotionProblem, error) {
	queries := dbgen.New(db)
	facts, err := queries.SlotPromotion(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("looking at what a promotion does to slot %s: %w", slot, err)
	}
	if facts.Standby {
		return judgeStandby(facts, slot), nil
	}
	standbys, err := queries.StandbySlots(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at the slots of standbys: %w", err)
	}
	return judgePrimary(facts, standbys), nil
}

func judgeStandby(facts dbgen.SlotPromotionRow, slot string) []PromotionProblem {
	goes := func(finding, remedy string) []PromotionProblem {
		return []PromotionProblem{{Finding: slotGoes + finding, Remedy: remedy}}
	}
	switch {
	case facts.Major < 17:
		return goes(noFailoverSlots(facts.Major))
	case facts.WalLevel != "logical":
		return goes("wal_level is "+facts.WalLevel+" on the standby", "set wal_level = logical on the standby, too (on RDS: rds.logical_replication = 1)")
	case facts.PrimarySlot == "":
		return goes("the standby streams without a physical slot", "make a physical slot on the primary, and name it in the standby's primary_slot_name")
	case !facts.Feedback:
		return goes("hot_standby_feedback is off on the standby", "set hot_standby_feedback = on on the standby")
	case !facts.Syncs:
		return goes("sync_replication_slots is off on the standby", "set sync_replication_slots = on on the standby")
	case !facts.Found:
		return goes("the standby does not have slot "+slot, "check that the slot is a failover slot on the primary, that primary_conninfo has a dbname "+
			"(on RDS: rds.logical_slot_sync_dbname), and the standby's log")
	case !facts.Synced:
		return goes("slot "+slot+" of the standby is not the primary's", "drop it on the standby, which then gets the primary's")
	case facts.Temporary:
		return goes("the standby's copy is not complete yet", "wait until the relay has confirmed an event; if it stays, see the standby's log")
	case facts.Lost:
		return goes("the standby has removed WAL that the slot needs", "wait until the standby makes it again; if it stays, raise max_slot_wal_keep_size there")
	}
	return nil
}

func judgePrimary(facts dbgen.SlotPromotionRow, standbys []dbgen.StandbySlotsRow) (found []PromotionProblem) {
	if len(standbys) == 0 && facts.Senders == 0 {
		return nil
	}
	switch {
	case facts.Major < 17:
		finding, remedy := noFailoverSlots(facts.Major)
		return []PromotionProblem{{Finding: slotGoes + finding, Remedy: remedy}}
	case facts.Found && !facts.Failover && facts.Plugin != "pgoutput":
		found = append(found, PromotionProblem{Finding: slotGoes + "it is DMS's, which is no failover slot",
			Remedy: "after a promotion let DMS load again (reload-target)"})
	case facts.Found && !facts.Failover:
		found = append(found, PromotionProblem{Finding: slotGoes + "it is not a failover slot", Remedy: "start walrelay again, which makes it one"})
	}
	if facts.Senders > 0 {
		found = append(found, PromotionProblem{Finding: slotGoes + "a standby streams without a physical slot",
			Remedy: "make a physical slot, and name it in the standby's primary_slot_name and in this server's synchronized_standby_slots"})
	}
	for _, s := range standbys {
		switch {
		case !s.Found:
			found = append(found, PromotionProblem{Finding: stalls + "synchronized_standby_slots names " + s.Name + ", and there is no such physical slot",
				Remedy: "make the slot, or take its name out of synchronized_standby_slots", Stalls: true})
			continue
		case s.Named && !s.Active:
			found = append(found, PromotionProblem{Finding: stalls + "nobody streams through slot " + s.Name + ", which synchronized_standby_slots names",
				Remedy: "start the standby, or take the slot's name out of synchronized_standby_slots", Stalls: true})
			continue
		case !s.Named:
			found = append(found, PromotionProblem{Finding: orphans + "synchronized_standby_slots does not name slot " + s.Name,
				Remedy: "name the slot of each standby that may be promoted there"})
		}
		if facts.Failover && s.Active && !s.HoldsSlots {
			found = append(found, PromotionProblem{Finding: slotGoes + "the standby of slot " + s.Name + " holds no slot",
				Remedy: "set sync_replication_slots and hot_standby_feedback on the standby, and run outboxctl doctor there"})
		}
	}
	return found
}

func noFailoverSlots(major int32) (finding, remedy string) {
	return fmt.Sprintf("PostgreSQL %d has no failover slots", major), "upgrade to 17 or later; until then a promotion costs a load of all retained rows (duplicates, no loss)"
}
