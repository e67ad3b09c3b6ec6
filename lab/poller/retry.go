package poller

import "time"

// Conditions of an on-failure message.
const (
	conditionRetries = "RetryAttemptsExhausted"
	conditionAge     = "RecordAgeExceeded"
)

// work is a batch, or what is left of one.
type work struct {
	records     []*record
	retries     int // used up
	invocations int // so far
	last        outcome
}

// first is the part of w up to place n.
func (w work) first(n int) work {
	w.records = w.records[:n]
	return w
}

// outcome of an invocation.
type outcome struct {
	from int   // place of the first record to deliver again. The number of records means success
	err  error // the invocation failed, or its answer could not be read. from is 0 then
}

// decision follows an invocation.
type decision struct {
	done      []*record
	discarded work
	left      []work // to be delivered next, in this order
}

// after decides what follows the invocation of w. The rules are those of
// docs.aws.amazon.com/lambda/latest/dg, with-kinesis and services-kinesis-batchfailurereporting.
// Everything from the returned number on is delivered again. With bisecting on, the batch is split
// there, or in halves when the invocation failed. A split uses no retry. Whether progress gives the
// used retries back is not documented. Here it does not.
func (c Config) after(w work, o outcome) decision {
	d := decision{done: w.records[:o.from]}
	rest := work{records: w.records[o.from:], retries: w.retries, invocations: w.invocations + 1, last: o}
	n := len(rest.records)
	switch {
	case n == 0:
		return d
	case c.BisectOnError && o.err == nil && o.from > 0:
		d.left = []work{rest}
		return d
	case c.BisectOnError && o.err != nil && n > 1:
		second := rest
		second.records = rest.records[n/2:]
		d.left = []work{rest.first(n / 2), second}
		return d
	case c.MaxRetries != nil && rest.retries >= *c.MaxRetries:
		d.discarded = rest
		return d
	}
	rest.retries++
	d.left = []work{rest}
	return d
}

// expired returns how many records of w are too old, from the first on. Records arrive in order.
func (c Config) expired(w work, now time.Time) int {
	n := 0
	for c.MaxRecordAge > 0 && n < len(w.records) && now.Sub(w.records[n].arrival) > c.MaxRecordAge {
		n++
	}
	return n
}
