package local

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/handlers/carstats"
	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/labtest"
)

// A query for a member that no line has finds nothing, and nobody is told. So each kind of line is made to happen, and what docs/operations.md
// says of them, in its queries and in its table, must be what they have.
func TestQueriesNameWhatTheLinesHave(t *testing.T) {
	t.Parallel()
	lines := everyLine(t)
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)

	queries := regexp.MustCompile("(?s)```logs\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.GreaterOrEqual(t, len(queries), 7)
	for _, query := range queries {
		require.Empty(t, wrongFields(query[1], lines), query[1])
	}

	table := lineTable(string(page))
	for message, kind := range lines {
		row, ok := table[message]
		if !ok {
			continue // lines of a single occasion, which speak for themselves
		}
		require.ElementsMatch(t, slices.Collect(kind.names()), row.members, "members of %q", message)
		require.ElementsMatch(t, kind.metrics, row.metrics, "metrics of %q", message)
		delete(table, message)
	}
	require.Empty(t, table, "lines of the table that nobody wrote")
}

// The parser is only as good as what it notices.
func TestWrongFields(t *testing.T) {
	t.Parallel()
	lines := map[string]*lineKind{
		"batch": {members: map[string]bool{"msg": true, "shard": true, "parked": true}},
		"put":   {members: map[string]bool{"msg": true, "retried": true}},
	}
	for query, wrong := range map[string]string{
		`fields @timestamp, shard | filter msg = "batch" and ispresent(parked) | sort @timestamp desc | limit 20`: "",
		`filter msg = "batch" | stats sum(parked) as n_1, pct(parked, 99) by bin(5m), shard | sort n_1 desc`:      "",
		`filter @message like /none (trace)/ # what is none`:                                                      "",
		`filter msg in ["batch", "put"] | stats sum(retried), sum(parked)`:                                        "",
		`filter msg = "batch" | stats sum(none) by bin(5m)`:                                                       "none",
		`filter msg = "batch" | fields retried`:                                                                   "retried",
		`filter msg = "none"`:                                                                                     "none",
		`fields none.x`:                                                                                           "none.x",
		`fields shard, sum`:                                                                                       "sum",
	} {
		require.Equal(t, wrong, strings.Join(wrongFields(query, lines), " "), query)
	}
}

// lineKind is what lines of one msg had.
type lineKind struct {
	members map[string]bool
	metrics []string
}

// everywhere is what the page does not repeat for each line.
var everywhere = []string{"time", "level", "msg", "hop", "_aws"}

func (k *lineKind) names() func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range k.members {
			if !slices.Contains(everywhere, name) && !yield(name) {
				return
			}
		}
	}
}

var keywords = []string{"fields", "filter", "stats", "sort", "limit", "display", "by", "as", "and", "or", "not", "in", "like", "asc", "desc"}

// wrongFields returns the names in a query that no line of the kinds that it asks for has.
// Keywords, functions, names that the query itself gives, and CloudWatch's own names, which begin
// with @, are not among them.
func wrongFields(query string, lines map[string]*lineKind) (wrong []string) {
	known := map[string]bool{"msg": true}
	messages := regexp.MustCompile(`msg (?:= |in \[)("[^"]*"(?:, "[^"]*")*)`).FindStringSubmatch(query)
	if messages != nil {
		for quoted := range strings.SplitSeq(messages[1], ", ") {
			if lines[strings.Trim(quoted, `"`)] == nil {
				wrong = append(wrong, strings.Trim(quoted, `"`))
			}
		}
	}
	for message, kind := range lines {
		if messages == nil || strings.Contains(messages[1], `"`+message+`"`) {
			for name := range kind.members {
				known[name] = true
			}
		}
	}
	bare := regexp.MustCompile(`"[^"]*"|(?:like|=~) /[^/]*/|#[^\n]*`).ReplaceAllString(query, " ")
	for _, alias := range regexp.MustCompile(`\bas (\w+)`).FindAllStringSubmatch(bare, -1) {
		known[alias[1]] = true
	}
	for _, word := range regexp.MustCompile(`[@\w.]+\(?`).FindAllString(bare, -1) {
		switch {
		case word[0] == '@' || word[0] >= '0' && word[0] <= '9' || strings.HasSuffix(word, "("):
		case !known[word] && !slices.Contains(keywords, word):
			wrong = append(wrong, word)
		}
	}
	return wrong
}

type tableRow struct{ members, metrics []string }

// lineTable reads the page's table, which has msg, who writes it, its members, and which of them
// are metrics. The dimension is a member.
func lineTable(page string) map[string]tableRow {
	_, section, _ := strings.Cut(page, "\n## log-lines\n")
	section, _, _ = strings.Cut(section, "\n## ")
	table := map[string]tableRow{}
	code := func(cell string) (names []string) {
		for _, found := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			names = append(names, found[1])
		}
		return names
	}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) == 6 && len(code(cells[1])) == 1 {
			table[code(cells[1])[0]] = tableRow{code(cells[3]), code(cells[4])}
		}
	}
	return table
}

// everyLine makes each kind of line happen on the whole path, and returns what their lines had.
func everyLine(t *testing.T) map[string]*lineKind {
	t.Helper()
	r := newRig(t)
	lines := func() map[string]*lineKind { return kinds(t, r) }
	seen := func(message string, members ...string) {
		t.Helper()
		labtest.Eventually(t, fmt.Sprintf("a line %q with %v", message, members), func() bool {
			kind := lines()[message]
			return kind != nil && !slices.ContainsFunc(members, func(name string) bool { return !kind.members[name] })
		})
	}
	seen("slot")
	r.post(t)
	r.requireWhole(t)
	r.AWS.Faults().Add(awslocal.Fault{Service: "kinesis", Operation: "PutRecords", Kind: awslocal.EntryError, Code: "ProvisionedThroughputExceededException", Count: 1})
	for range 2 { // the second time it is the answer of the first
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.APIURL+"/cars", strings.NewReader(domain.Sample(0)))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", "queries")
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusCreated, response.StatusCode)
	}
	seen("request", "event_id", "replayed")
	seen("put", "last_code", "trace_ids")
	seen("batch", "commit_to_bus_seconds", "trace_ids")
	seen("car stats", "trace_ids")
	ordered, err := carstats.New(carstats.Config{Pool: r.pool, Logger: slog.New(slog.NewJSONHandler(&r.json, nil)), InOrder: true})
	require.NoError(t, err)
	_, err = ordered.Handle(t.Context(), events.SQSEvent{})
	require.NoError(t, err)
	seen("car stats: held")

	_, err = r.pool.Exec(t.Context(), "ALTER TABLE cars RENAME TO away")
	require.NoError(t, err)
	response, err := http.Get(r.APIURL + "/cars/" + uuid.NewString())
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusInternalServerError, response.StatusCode)
	_, err = r.pool.Exec(t.Context(), "ALTER TABLE away RENAME TO cars")
	require.NoError(t, err)
	seen("request", "error")

	r.put(t, "poison", []byte("hello"))
	seen("parked")
	queue := awslocal.QueueURL(r.Services.Local, localStats)
	unknown := fmt.Sprintf(`{"detail-type":"CarRepainted","source":"outbox.car","resources":[],"detail":{"eventId":%q,"aggregateType":"Car","aggregateId":%q,
		"aggregateVersion":1,"eventData":{"make":"Opel","year":2020},"timestamp":"2026-11-23T00:00:00Z"}}`, uuid.NewString(), uuid.NewString())
	_, err = r.Services.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &unknown})
	require.NoError(t, err)
	seen("car stats: a message failed", "event_id")

	denied := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.CallError, Code: "AccessDeniedException"})
	r.post(t)
	seen("batch", "lowest_failed_sequence_number", "error") // as soon as the invocation's time is over: 26 s
	denied.Off()
	return lines()
}

// kinds reads all lines of the path and of its relay.
func kinds(t *testing.T, r *rig) map[string]*lineKind {
	t.Helper()
	relay, err := os.ReadFile(r.Relay.Log())
	require.NoError(t, err)
	all := slices.Collect(strings.Lines(string(relay)))
	for _, line := range r.json.all() {
		all = append(all, string(line))
	}
	kinds := map[string]*lineKind{}
	for _, text := range all {
		if !strings.HasSuffix(text, "\n") {
			continue // being written
		}
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		message := line["msg"].(string)
		if kinds[message] == nil {
			kinds[message] = &lineKind{members: map[string]bool{}}
		}
		for name := range line {
			kinds[message].members[name] = true
		}
		for _, name := range metricsOf(t, text) {
			if !slices.Contains(kinds[message].metrics, name) {
				kinds[message].metrics = append(kinds[message].metrics, name)
			}
		}
	}
	return kinds
}

// metricsOf are the members that _aws names, and the dimension.
func metricsOf(t *testing.T, text string) (names []string) {
	t.Helper()
	var line struct {
		AWS struct {
			CloudWatchMetrics []struct {
				Namespace string
				Metrics   []struct{ Name string }
			}
		} `json:"_aws"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &line))
	for _, directive := range line.AWS.CloudWatchMetrics {
		require.Equal(t, "rds-outbox-demo", directive.Namespace)
		for _, metric := range directive.Metrics {
			names = append(names, metric.Name)
		}
	}
	return names
}
