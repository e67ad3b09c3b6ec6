package local

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/labtest"
)

// statsDiffer lists the totals that are not those of the tables: cars as they are, events as they were written.
const statsDiffer = `
	SELECT format('%s %s: %s of %s cars, %s of %s changes', make, year, stats.cars, coalesce(now.cars, 0), stats.changes, events.changes)
	FROM car_stats AS stats
	FULL JOIN (SELECT make, year, count(*) AS cars FROM cars GROUP BY make, year) AS now USING (make, year)
	FULL JOIN (
		SELECT event_data ->> 'make' AS make, (event_data ->> 'year')::integer AS year, count(*) AS changes
		FROM outbox GROUP BY 1, 2
	) AS events USING (make, year)
	WHERE stats.cars IS DISTINCT FROM coalesce(now.cars, 0) OR stats.changes IS DISTINCT FROM events.changes
	ORDER BY make, year`

// requireStats waits until the totals are right.
func (r *rig) requireStats(t *testing.T) {
	t.Helper()
	var differ []string
	for deadline := time.Now().Add(labtest.Patience); ; time.Sleep(20 * time.Millisecond) {
		rows, err := r.pool.Query(t.Context(), statsDiffer)
		require.NoError(t, err)
		differ = differ[:0]
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			differ = append(differ, line)
		}
		require.NoError(t, rows.Err())
		if len(differ) == 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), "%v", differ)
	}
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

// From POST to the totals, while the bus and the rule deliver twice and in disorder, deletions of messages fail, and a poison message
// comes between: every event counts once, and only the poison is parked.
func TestCarStats(t *testing.T) {
	t.Parallel()
	r := newRig(t)
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
		r.change(t, id, http.MethodPatch, `{"make":"Opel"}`)
		r.change(t, id, http.MethodPatch, fmt.Sprintf(`{"make":"Fiat","year":%d}`, 2000+n%3))
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
