package awslocal_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

// logRig is a bus, its log group and a clock.
type logRig struct {
	*clock
	aws  aws.Config
	logs *cloudwatchlogs.Client
}

func newLogRig(t *testing.T, rows int) logRig {
	t.Helper()
	r := logRig{clock: newClock()}
	_, r.aws = start(t, awslocal.Config{
		Buses: []string{"bus", "other"}, BusLogs: map[string]string{"/aws/events/bus": "bus"}, QueryRows: rows, Now: r.now,
	})
	r.logs = cloudwatchlogs.NewFromConfig(r.aws)
	return r
}

func (r logRig) put(t *testing.T, bus, source, detail string, resources ...string) (id string) {
	t.Helper()
	out, err := eventbridge.NewFromConfig(r.aws).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []eventtypes.PutEventsRequestEntry{{
		EventBusName: &bus, Source: &source, DetailType: aws.String("CarCreated"), Detail: &detail, Resources: resources,
	}}})
	require.NoError(t, err)
	return *out.Entries[0].EventId
}

func (r logRig) begin(t *testing.T, query string, from, to time.Time, limit ...int32) *string {
	t.Helper()
	in := &cloudwatchlogs.StartQueryInput{
		LogGroupName: aws.String("/aws/events/bus"), StartTime: aws.Int64(from.Unix()), EndTime: aws.Int64(to.Unix()), QueryString: &query,
	}
	if len(limit) > 0 {
		in.Limit = &limit[0]
	}
	out, err := r.logs.StartQuery(t.Context(), in)
	require.NoError(t, err)
	return out.QueryId
}

func (r logRig) results(t *testing.T, id *string) *cloudwatchlogs.GetQueryResultsOutput {
	t.Helper()
	out, err := r.logs.GetQueryResults(t.Context(), &cloudwatchlogs.GetQueryResultsInput{QueryId: id})
	require.NoError(t, err)
	return out
}

// query runs it to its end and returns the rows as maps.
func (r logRig) query(t *testing.T, query string, limit ...int32) ([]map[string]string, *logtypes.QueryStatistics) {
	t.Helper()
	id := r.begin(t, query, r.now().Add(-time.Hour), r.now().Add(time.Hour), limit...)
	require.Equal(t, logtypes.QueryStatusRunning, r.results(t, id).Status)
	out := r.results(t, id)
	require.Equal(t, logtypes.QueryStatusComplete, out.Status)
	rows := []map[string]string{}
	for _, fields := range out.Results {
		row := map[string]string{}
		for _, f := range fields {
			row[*f.Field] = *f.Value
		}
		require.NotEmpty(t, row["@ptr"])
		delete(row, "@ptr")
		rows = append(rows, row)
	}
	return rows, out.Statistics
}

func TestLogsInsights(t *testing.T) {
	t.Parallel()

	t.Run("ShowsAnEventAsEventBridgeHandsItToATarget", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 0)
		r.pass(345*time.Millisecond + 678*time.Microsecond)
		id := r.put(t, "bus", "outbox.car", `{"eventId":"e1","n":1.50,"list":[{"a":"<b>"},null,true]}`, "replay/r1")
		r.put(t, "other", "outbox.car", `{}`)
		rows, statistics := r.query(t, "fields @timestamp, @ingestionTime as arrived, id, `detail-type` as kind, `resources.0`, detail.n, "+
			"detail.list.0.a, detail.list.1, detail.list.2, nothing, coalesce(nothing, detail.eventId) as event, @message")
		message := `{"version":"0","id":"` + id + `","detail-type":"CarCreated","source":"outbox.car","account":"000000000000",` +
			`"time":"2026-03-01T12:00:00Z","region":"us-east-1","resources":["replay/r1"],"detail":{"eventId":"e1","n":1.50,"list":[{"a":"<b>"},null,true]}}`
		require.Equal(t, []map[string]string{{
			"@timestamp": "2026-03-01 12:00:00.345", "arrived": "2026-03-01 12:00:00.345", "id": id, "kind": "CarCreated", "resources.0": "replay/r1",
			"detail.n": "1.50", "detail.list.0.a": "<b>", "detail.list.2": "true", "event": "e1", "@message": message,
		}}, rows)
		require.Equal(t, 1.0, statistics.RecordsMatched)
		require.Equal(t, 1.0, statistics.RecordsScanned)
	})

	t.Run("FiltersAndKeepsTheNewest", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 3)
		var ids []string
		for i := range 6 {
			ids = append(ids, r.put(t, "bus", []string{"outbox.car", "other"}[i%2], fmt.Sprintf(`{"n":%d,"text":"needle %d"}`, i, i/2)))
			r.pass(time.Second)
		}
		ns := func(query string, limit ...int32) (all []string) {
			rows, _ := r.query(t, "fields detail.n as n"+query, limit...)
			for _, row := range rows {
				all = append(all, row["n"])
			}
			return all
		}
		require.Equal(t, []string{"5", "4", "3"}, ns(""))
		require.Equal(t, []string{"5", "4"}, ns("", 2))
		require.Equal(t, []string{"4", "2", "0"}, ns(" | filter source like /^outbox[.]/ | sort @timestamp desc"))
		require.Equal(t, []string{"2"}, ns(" | filter source like /^outbox[.]/ | filter @message like \"needle 1\""))
		require.Equal(t, []string{"4"}, ns(" | filter id like /^"+ids[4]+"/"))
		require.Empty(t, ns(" | filter detail.absent like /./"))
		_, statistics := r.query(t, "fields id")
		require.Equal(t, 6.0, statistics.RecordsMatched, "more than the rows: how a client sees that they are cut")
	})

	t.Run("BothEndsOfTheTimeAreInclusive", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 0)
		begin := r.now()
		for range 3 {
			r.put(t, "bus", "s", `{}`)
			r.pass(time.Second)
		}
		id := r.begin(t, "fields id", begin, begin.Add(time.Second))
		r.results(t, id)
		require.Len(t, r.results(t, id).Results, 2)
		require.Len(t, r.results(t, id).Results, 2, "and again")
	})

	t.Run("FindsTheFirst200FieldsOnly", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 0)
		many := map[string]int{}
		for i := range 300 {
			many[fmt.Sprintf("f%03d", i)] = i
		}
		detail, err := json.Marshal(many)
		require.NoError(t, err)
		r.put(t, "bus", "s", string(detail))
		rows, _ := r.query(t, "fields detail.f000, detail.f299, coalesce(detail.f299, @message) as last")
		require.Equal(t, "0", rows[0]["detail.f000"])
		require.NotContains(t, rows[0], "detail.f299")
		require.Contains(t, rows[0]["last"], `"f299":299`)
	})

	t.Run("RefusesWhatItDoesNotUnderstand", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 0)
		r.put(t, "bus", "s", `{}`)
		for name, query := range map[string]string{
			"Empty": "", "NoFields": "filter id like /a/", "Stats": "fields id | stats count(*)", "Sort": "fields id | sort id asc",
			"Function": "fields toMillis(@timestamp) as t", "CoalesceWithoutName": "fields coalesce(id, source)", "Equals": `fields id | filter id = "a"`,
			"BadRegexp": "fields id | filter id like /(/", "UnquotedHyphen": "fields detail-type",
		} {
			_, err := r.logs.StartQuery(t.Context(), &cloudwatchlogs.StartQueryInput{
				LogGroupName: aws.String("/aws/events/bus"), StartTime: aws.Int64(0), EndTime: aws.Int64(r.now().Unix()), QueryString: &query,
			})
			var malformed *logtypes.MalformedQueryException
			require.ErrorAs(t, err, &malformed, name)
		}
		for name, tc := range map[string]struct {
			edit func(*cloudwatchlogs.StartQueryInput)
			code string
		}{
			"OtherGroup":    {func(in *cloudwatchlogs.StartQueryInput) { in.LogGroupName = aws.String("/aws/lambda/x") }, "ResourceNotFoundException"},
			"NoGroup":       {func(in *cloudwatchlogs.StartQueryInput) { in.LogGroupName = nil }, "InvalidParameterException"},
			"EndFirst":      {func(in *cloudwatchlogs.StartQueryInput) { in.StartTime = aws.Int64(*in.EndTime + 1) }, "InvalidParameterException"},
			"LimitTooHigh":  {func(in *cloudwatchlogs.StartQueryInput) { in.Limit = aws.Int32(10_001) }, "InvalidParameterException"},
			"BeforeTheLogs": {func(in *cloudwatchlogs.StartQueryInput) { in.StartTime, in.EndTime = aws.Int64(1), aws.Int64(2) }, "MalformedQueryException"},
		} {
			in := &cloudwatchlogs.StartQueryInput{
				LogGroupName: aws.String("/aws/events/bus"), StartTime: aws.Int64(0), EndTime: aws.Int64(r.now().Unix()), QueryString: aws.String("fields id"),
			}
			tc.edit(in)
			_, err := r.logs.StartQuery(t.Context(), in)
			require.Equal(t, tc.code, code(t, err), name)
		}
	})

	t.Run("StopsAndForgets", func(t *testing.T) {
		t.Parallel()
		r := newLogRig(t, 0)
		id := r.begin(t, "fields id", r.now(), r.now())
		out, err := r.logs.StopQuery(t.Context(), &cloudwatchlogs.StopQueryInput{QueryId: id})
		require.NoError(t, err)
		require.True(t, out.Success)
		require.Equal(t, logtypes.QueryStatusCancelled, r.results(t, id).Status)
		_, err = r.logs.StopQuery(t.Context(), &cloudwatchlogs.StopQueryInput{QueryId: id})
		require.Equal(t, "InvalidParameterException", code(t, err))
		_, err = r.logs.GetQueryResults(t.Context(), &cloudwatchlogs.GetQueryResultsInput{QueryId: aws.String("none")})
		require.Equal(t, "ResourceNotFoundException", code(t, err))
		for range 100 {
			r.begin(t, "fields id", r.now(), r.now())
		}
		_, err = r.logs.StartQuery(t.Context(), &cloudwatchlogs.StartQueryInput{
			LogGroupName: aws.String("/aws/events/bus"), StartTime: aws.Int64(0), EndTime: aws.Int64(1), QueryString: aws.String("fields id"),
		})
		require.Equal(t, "LimitExceededException", code(t, err))
	})

	t.Run("ABadConfigurationIsRefused", func(t *testing.T) {
		t.Parallel()
		_, err := awslocal.Open(awslocal.Config{Dir: t.TempDir(), BusLogs: map[string]string{"a b": "bus"}})
		require.ErrorContains(t, err, `Config.BusLogs["a b"]`)
	})
}
