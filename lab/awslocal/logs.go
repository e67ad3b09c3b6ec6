package awslocal

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// Limits of Logs Insights: API reference of StartQuery and GetQueryResults, as in cloudwatchlogs v1.92.0. Behind the first
	// 10,000 rows GetQueryResults goes on by nextToken, up to 100,000; nothing here needs that, so a limit above one page is refused.
	maxQueryRows      = 10_000
	maxQueriesRunning = 100
	maxQueriesKept    = 1000
)

// logs is CloudWatch Logs as far as Logs Insights reads the log groups that get every event of a bus.
type logs struct {
	conf Config

	mu      sync.Mutex
	queries map[string]*logQuery
	order   []string // ids of queries, the oldest first. The service forgets them after 7 days, this listener after maxQueriesKept
}

// logQuery is one StartQuery. It runs when its results are requested for the second time, so a
// client that does not wait for Complete gets nothing.
type logQuery struct {
	insight
	bus        string
	start, end time.Time // both inclusive
	limit      int
	status     string
	looked     bool // at its results
}

var logGroupName = regexp.MustCompile(`^[.\-_/#A-Za-z0-9]{1,512}$`)

func openLogs(conf Config) (*logs, error) {
	for name, bus := range conf.BusLogs {
		if !logGroupName.MatchString(name) || bus == "" {
			return nil, fmt.Errorf("awslocal: Config.BusLogs[%q] is %q: map the name of a log group to the name of a bus", name, bus)
		}
	}
	return &logs{conf: conf, queries: map[string]*logQuery{}}, nil
}

type startQueryInput struct {
	LogGroupName string
	StartTime    *int64 // s
	EndTime      *int64
	QueryString  string
	Limit        *int
}

func (l *logs) startQuery(_ *call, in *startQueryInput) (any, error) {
	bus, ok := l.conf.BusLogs[in.LogGroupName]
	switch {
	case in.LogGroupName == "":
		return nil, clientError("InvalidParameterException", "Name a log group with logGroupName: the others are not served here.")
	case !ok:
		return nil, clientError("ResourceNotFoundException", "Log group '"+in.LogGroupName+"' does not exist for account ID '"+Account+"'")
	case in.StartTime == nil || in.EndTime == nil || *in.StartTime < 0 || *in.EndTime < *in.StartTime:
		return nil, clientError("InvalidParameterException", "startTime and endTime must be seconds since 1970, startTime not behind endTime.")
	case in.Limit != nil && (*in.Limit < 1 || *in.Limit > maxQueryRows):
		return nil, clientError("InvalidParameterException", fmt.Sprintf("limit must be 1 to %d.", maxQueryRows))
	}
	query := &logQuery{bus: bus, start: time.Unix(*in.StartTime, 0), end: time.Unix(*in.EndTime, 0), limit: l.conf.QueryRows, status: "Running"}
	if in.Limit != nil {
		query.limit = min(query.limit, *in.Limit)
	}
	var err error
	if query.insight, err = parseInsight(in.QueryString); err != nil {
		return nil, clientError("MalformedQueryException", err.Error())
	}
	if first, err := l.firstEvent(); err != nil {
		return nil, err
	} else if !first.IsZero() && query.end.Before(first.Truncate(time.Second)) {
		// The text is AWS's, quoted in many bug reports. The service compares with the creation of
		// the group. Here the oldest event takes the place of the creation.
		return nil, clientError("MalformedQueryException",
			"Query's end date and time is either before the log groups creation time or exceeds the log groups log retention settings ([0,14])")
	}
	return l.add(query)
}

func (l *logs) add(query *logQuery) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := 0
	for _, q := range l.queries {
		if q.status == "Running" {
			running++
		}
	}
	if running >= maxQueriesRunning {
		return nil, clientError("LimitExceededException", "Account maximum query concurrency limit reached.")
	}
	if len(l.order) == maxQueriesKept {
		delete(l.queries, l.order[0])
		l.order = l.order[1:]
	}
	id := uuid.NewString()
	l.queries[id], l.order = query, append(l.order, id)
	return map[string]string{"queryId": id}, nil
}

// firstEvent returns when the oldest event of the journal was accepted. It is zero without events.
func (l *logs) firstEvent() (first time.Time, err error) {
	err = ReadBus(l.conf.Dir, func(e BusEvent) error {
		first = e.Accepted
		return errEnough
	})
	return first, ignoreEnough(err)
}

type queryInput struct{ QueryId string }

type queryResults struct {
	QueryLanguage string           `json:"queryLanguage"`
	Results       [][]resultField  `json:"results"`
	Statistics    resultStatistics `json:"statistics"`
	Status        string           `json:"status"`
}

type resultField struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

type resultStatistics struct {
	BytesScanned   float64 `json:"bytesScanned"` // of details, here
	RecordsMatched float64 `json:"recordsMatched"`
	RecordsScanned float64 `json:"recordsScanned"`
}

// getQueryResults answers Running once, without rows, and Complete from then on. AWS may also give
// a part of the rows while the query runs (API reference). A client that takes the first answer for
// all rows fails here, too.
func (l *logs) getQueryResults(_ *call, in *queryInput) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // one scan of the journal at a time
	query, ok := l.queries[in.QueryId]
	switch {
	case !ok:
		return nil, clientError("ResourceNotFoundException", "Query with ID "+in.QueryId+" does not exist.")
	case query.status == "Cancelled", !query.looked:
		query.looked = true
		return &queryResults{QueryLanguage: "CWLI", Results: [][]resultField{}, Status: query.status}, nil
	default:
		query.status = "Complete" // its rows are not kept, because they may be many, and a second look can read them again
		return l.run(query)
	}
}

// run returns the newest rows, the newest first, as Logs Insights does without a sort. Memory holds no more than the rows.
func (l *logs) run(query *logQuery) (*queryResults, error) {
	answer := &queryResults{QueryLanguage: "CWLI", Results: [][]resultField{}, Status: "Complete"}
	err := l.scan(query, func(e *logEvent) {
		answer.Statistics.RecordsScanned++
		answer.Statistics.BytesScanned += float64(len(e.Detail))
		if !query.matches(e) {
			return
		}
		answer.Statistics.RecordsMatched++
		answer.Results = append(answer.Results, query.row(e))
		answer.Results = answer.Results[max(0, len(answer.Results)-query.limit):]
	})
	slices.Reverse(answer.Results)
	return answer, err
}

// scan calls fn for the events of the query's bus and time.
func (l *logs) scan(query *logQuery, fn func(*logEvent)) error {
	inTime := func(at time.Time) bool {
		at = at.Truncate(time.Millisecond)
		return !at.Before(query.start) && !at.After(query.end)
	}
	return readBus(l.conf.Dir, func(line []byte) bool {
		// The journal writes eventId, eventBus and acceptedAt first, and a bus's name needs no
		// escapes.
		_, rest, _ := bytes.Cut(line, []byte(`"acceptedAt":"`))
		text, _, _ := bytes.Cut(rest, []byte(`"`))
		at, err := time.Parse(time.RFC3339Nano, string(text))
		return err != nil || inTime(at)
	}, func(e BusEvent) error {
		if e.Bus != query.bus || !inTime(e.Accepted) {
			return nil
		}
		fn(&logEvent{BusEvent: e, at: e.Accepted.Truncate(time.Millisecond)})
		return nil
	})
}

func (l *logs) stopQuery(_ *call, in *queryInput) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	query, ok := l.queries[in.QueryId]
	if !ok {
		return nil, clientError("ResourceNotFoundException", "Query with ID "+in.QueryId+" does not exist.")
	}
	if query.status != "Running" {
		return nil, clientError("InvalidParameterException", "Query is not in running status.")
	}
	query.status = "Cancelled"
	return map[string]bool{"success": true}, nil
}
