package local

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
	"rds-outbox-demo/lab/labtest"
)

// requireStats waits until the subscriber's totals equal those of the tables, cars as they are and
// events as they were written.
func (r *rig) requireStats(t *testing.T) {
	t.Helper()
	var want, got map[string]judge.Stat
	for deadline := time.Now().Add(labtest.Patience); ; time.Sleep(20 * time.Millisecond) {
		want, got = map[string]judge.Stat{}, map[string]judge.Stat{}
		add := func(data []byte, cars, changes int64) {
			kind, err := domain.Kind(data)
			require.NoError(t, err)
			want[kind] = judge.Stat{Kind: kind, Cars: want[kind].Cars + cars, Changes: want[kind].Changes + changes}
		}
		for _, car := range collect[judge.Car](t, r, domain.Rows) {
			add(car.State, 1, 0)
		}
		for _, event := range collect[struct{ Data []byte }](t, r, "SELECT event_data AS data FROM outbox") {
			add(event.Data, 0, 1)
		}
		for _, total := range collect[judge.Stat](t, r, domain.Totals) {
			got[total.Kind] = total
		}
		if maps.Equal(want, got) {
			return
		}
		require.True(t, time.Now().Before(deadline), "%v instead of %v", got, want)
	}
}

func collect[T any](t *testing.T, r *rig, sql string) []T {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), sql)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	require.NoError(t, err)
	return all
}

func (r *rig) change(t *testing.T, id, method, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.APIURL+"/cars/"+id, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Less(t, response.StatusCode, 300)
}

// depth is how many messages of a queue are visible, hidden and delayed.
func (r *rig) depth(t *testing.T, queue string) string {
	t.Helper()
	url := awslocal.QueueURL(r.Services.Local, queue)
	out, err := r.Services.SQS().GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: countAttributes})
	require.NoError(t, err)
	return strings.Join([]string{
		out.Attributes["ApproximateNumberOfMessages"], out.Attributes["ApproximateNumberOfMessagesNotVisible"],
		out.Attributes["ApproximateNumberOfMessagesDelayed"],
	}, " ")
}

var countAttributes = []types.QueueAttributeName{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"}

// patientCarStats has a message come again only if its invocation took 20 s, and parks it after so many receives. With ForPeople's 4 s a busy
// machine parks events that nothing is wrong with.
func patientCarStats(receives int) func(*Config) {
	return func(c *Config) {
		stats := &c.Settings.CarStats
		stats.Timeout, stats.VisibilityTimeout, stats.MaxReceives = 20*time.Second, 20*time.Second, receives
	}
}

// From POST to the totals. The bus and the rule deliver twice and in disorder, deletions of
// messages fail, and a poison message comes between. Every event counts once, and only the poison
// is parked.
func TestCarStats(t *testing.T) {
	t.Parallel()
	r := newRig(t, patientCarStats(3))
	lost := r.AWS.Faults().Add(awslocal.Fault{Service: "events", Operation: "PutEvents", Kind: awslocal.ResetAfter, Count: 3})
	late := r.AWS.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Delay, Delay: 2 * time.Second, Rate: 0.4, Seed: 2})
	twice := r.AWS.Faults().Add(awslocal.Fault{Service: "rules", Kind: awslocal.Duplicate, Delay: 2 * time.Second, Rate: 0.4, Seed: 3})
	undeleted := r.AWS.Faults().Add(awslocal.Fault{Service: "sqs", Operation: "DeleteMessage", Kind: awslocal.CallError, Code: "RequestThrottled", Count: 3})
	queue := awslocal.QueueURL(r.Services.Local, localStats)
	poison := "hello"
	_, err := r.Services.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &poison})
	require.NoError(t, err)

	for n := range 12 {
		id := r.post(t)
		r.change(t, id, http.MethodPatch, domain.Change(1, "first"))
		r.change(t, id, http.MethodPatch, domain.Change(2+n%3, "second"))
		if n%4 == 0 {
			r.change(t, id, http.MethodDelete, "")
		}
	}
	r.requireWhole(t)
	r.requireStats(t)
	labtest.Eventually(t, "the poison in the failure queue, and nothing else", func() bool {
		return r.depth(t, localStats) == "0 0 0" && r.depth(t, localStats+"-failures") == "1 0 0"
	})
	r.requireStats(t) // what came late or twice since changed nothing
	for _, fault := range []*awslocal.Active{lost, late, twice, undeleted} {
		require.NotZero(t, fault.Struck(), fault.Fault())
	}
	var seen int
	require.NoError(t, r.pool.QueryRow(t.Context(), "SELECT count(*) FROM inbox").Scan(&seen))
	require.Equal(t, 12*3+3, seen)
	require.Regexp(t, `car stats.* duplicates=[1-9]`, r.logged())
	require.Regexp(t, `car stats.* (gaps|late)=[1-9]`, r.logged())
}
