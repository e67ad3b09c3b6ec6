package faults

import (
	"net/http"
	"time"

	"rds-outbox-demo/lab/awslocal"
)

// Rules of the local AWS listener that more than one fault or trial uses. Each strikes every call
// or entry. Rated makes one that strikes less often.
var (
	// KinesisThrottled refuses records, as a shard does beyond its limit. The call itself succeeds.
	KinesisThrottled = awslocal.Fault{
		Service: "kinesis", Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException",
	}
	// KinesisDown fails whole calls.
	KinesisDown = awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.CallError, Status: http.StatusInternalServerError}
	// KinesisSlow delays every call.
	KinesisSlow = awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.Delay, Delay: 200 * time.Millisecond}

	// EntriesFail fails entries of calls that themselves succeed.
	EntriesFail = awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.EntryError, Code: "InternalFailure"}
	// BusDown fails whole calls.
	BusDown = awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Status: http.StatusServiceUnavailable}
	// BusAnswersLost resets the connection after the entries were accepted, so that the consumer sends them again.
	BusAnswersLost = awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter}
	// Duplicates lets the bus deliver an event to the subscriber's queue once more.
	Duplicates = awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Delay: 500 * time.Millisecond}

	// QueueDown fails every call that parks a record.
	QueueDown = awslocal.Fault{Service: "sqs", Operation: "SendMessage", Kind: awslocal.CallError, Status: http.StatusInternalServerError}
)

// Rated returns the rule for a share of the calls or entries, from 0 (none) to 1.
func Rated(rule awslocal.Fault, share float64) awslocal.Fault {
	rule.Rate = share
	return rule
}
