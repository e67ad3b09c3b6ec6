package infra_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/emf"
)

// alarms has the metric of each alarm, and the dimensions without which the metric has no data.
var alarms = map[string]struct {
	metric     string
	dimensions []string
}{
	"ApiErrorsAlarm":           {"AWS/ApiGateway 5XXError", []string{"ApiName", "Stage"}},
	"ApiConcurrencyAlarm":      {"AWS/Lambda Throttles", []string{"FunctionName"}},
	"DatabaseStorageAlarm":     {"AWS/RDS FreeStorageSpace", []string{"DBInstanceIdentifier"}},
	"DatabaseConnectionsAlarm": {"AWS/RDS DatabaseConnections", []string{"DBInstanceIdentifier"}},
	"ReplicationSlotLagAlarm":  {"AWS/RDS OldestReplicationSlotLag", []string{"DBInstanceIdentifier"}},
	"RetentionAlarm":           {"AWS/Lambda Errors", []string{"FunctionName"}},
	"StreamThrottledAlarm":     {"AWS/Kinesis WriteProvisionedThroughputExceeded", []string{"StreamName"}},
	"ConsumerLagAlarm":         {"AWS/Lambda IteratorAge", []string{"FunctionName"}},
	"ConsumerErrorsAlarm":      {"AWS/Lambda Errors", []string{"FunctionName"}},
	"ConsumerFailuresAlarm":    {"AWS/SQS ApproximateNumberOfMessagesVisible", []string{"QueueName"}},
	"ConsumerDiscardsAlarm":    {"AWS/SQS ApproximateNumberOfMessagesVisible", []string{"QueueName"}},
	"CarStatsLagAlarm":         {"AWS/SQS ApproximateAgeOfOldestMessage", []string{"QueueName"}},
	"CarStatsFailuresAlarm":    {"AWS/SQS ApproximateNumberOfMessagesVisible", []string{"QueueName"}},
	"CarStatsDeliveryAlarm":    {"AWS/Events FailedInvocations", []string{"EventBusName", "RuleName"}},
	"CarStatsUndeliveredAlarm": {"AWS/Events InvocationsFailedToBeSentToDlq", []string{"EventBusName", "RuleName"}},
	"CarStatsGaveUpAlarm":      {emf.Namespace + " given_up", []string{"FunctionName"}},
	"CommitToBusAlarm":         {emf.Namespace + " commit_to_bus_seconds", []string{"FunctionName"}},
	"CanaryAlarm":              {"", nil}, // its namespace has the stage
	"MisplacedAlarm":           {emf.Namespace + " misplaced", []string{"FunctionName"}},
	"EventBusLogAlarm":         {"AWS/Events FailedInvocations", []string{"EventBusName", "RuleName"}},
	"ConsumerSilentAlarm":      {}, // of two metrics
	"StreamUnreadAlarm":        {"AWS/Kinesis GetRecords.IteratorAgeMilliseconds", []string{"StreamName"}},
}

func TestAlarms(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		require.Len(t, s.of("AWS::CloudWatch::Alarm"), len(alarms))
		topic := []any{map[string]any{"Ref": "AlarmTopic"}}
		for id, want := range alarms {
			alarm := s.Resources[id]
			require.Regexp(t, `^[①②③④⑤⑥] .+First: .+docs/operations\.md#[a-z-]+$`, alarm.get(t, "AlarmDescription"), id)
			require.LessOrEqual(t, len(alarm.get(t, "AlarmDescription").(string)), 1024, id)
			require.Equal(t, topic, alarm.get(t, "AlarmActions"), id)
			if want.metric == "" {
				continue
			}
			require.Equal(t, want.metric, alarm.get(t, "Namespace").(string)+" "+alarm.get(t, "MetricName").(string), id)
			var dimensions []string
			for _, dimension := range alarm.get(t, "Dimensions").([]any) {
				dimensions = append(dimensions, dimension.(map[string]any)["Name"].(string))
				require.NotEmpty(t, dimension.(map[string]any)["Value"], id)
			}
			require.Equal(t, want.dimensions, dimensions, id)
		}
		require.Equal(t, "rds-outbox-demo-"+stage, s.Resources["ApiGatewayRestApi"].get(t, "Name"))
		require.Equal(t, s.Resources["LogEveryEvent"].get(t, "Name"), s.Resources["EventBusLogAlarm"].get(t, "Dimensions", 1, "Value"))
		require.Equal(t, s.Resources["CarStatsRule"].get(t, "Name"), s.Resources["CarStatsDeliveryAlarm"].get(t, "Dimensions", 1, "Value"))

		const ms = 1000
		giveUp := s.Resources[mappingID].number(t, "MaximumRecordAgeInSeconds") * ms
		require.Less(t, s.Resources["ConsumerLagAlarm"].number(t, "Threshold"), giveUp/100, "long before Lambda gives up")
	})
}

// A metric that only a schedule makes says nothing when the schedule does not run. With breaching, a new stack would raise the alarm before
// the first run.
func TestASilentScheduleIsReported(t *testing.T) {
	t.Parallel()
	topic := []any{map[string]any{"Ref": "AlarmTopic"}}
	for _, s := range []*stack{packaged(t, "dev"), packaged(t, "prod"), withParameters(t)} {
		for _, id := range []string{"RetentionAlarm", "CarStatsGaveUpAlarm"} {
			require.Equal(t, "missing", s.Resources[id].get(t, "TreatMissingData"), id)
			require.Equal(t, topic, s.Resources[id].get(t, "InsufficientDataActions"), id)
		}
		require.EqualValues(t, 3600, s.Resources["RetentionAlarm"].number(t, "Period"))
	}
	require.Equal(t, "false", fmt.Sprint(packaged(t, "dev").Resources["CarStatsGaveUpAlarm"].get(t, "ActionsEnabled")), "it has no metric")
	require.Equal(t, "true", fmt.Sprint(withParameters(t).Resources["CarStatsGaveUpAlarm"].get(t, "ActionsEnabled")))
}

// A burst of records that nobody reads may be followed by quiet, so that no metric of records or invocations has data any more. That is
// the same for a consumer that stands and for one that has nothing to do. Only Lambda's polling tells them apart. The canary, which would
// see it too, is off in dev.
func TestRecordsThatNobodyReadsAreReportedInTheQuiet(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		var loud []string // when no metric has data
		for id := range alarms {
			alarm := s.Resources[id].Properties
			if alarm["TreatMissingData"] == "breaching" && fmt.Sprint(alarm["ActionsEnabled"]) != "false" {
				loud = append(loud, id)
			}
		}
		require.Contains(t, loud, "StreamUnreadAlarm")
		unread := s.Resources["StreamUnreadAlarm"]
		require.Equal(t, map[string]any{"Ref": "OutboxStream"}, unread.get(t, "Dimensions", 0, "Value"))
		require.Equal(t, "SampleCount", unread.get(t, "Statistic"), "a reader without records has an iterator of age 0")
		require.Equal(t, "LessThanThreshold", unread.get(t, "ComparisonOperator"))
		require.EqualValues(t, 1, unread.number(t, "Threshold"))
		require.LessOrEqual(t, unread.number(t, "Period")*unread.number(t, "EvaluationPeriods"), 1800.0)
		require.Contains(t, unread.DependsOn, mappingID, "a new stack's mapping polls before the alarm is there")
	})
}

// silences has the alarms that say nothing when their metric has no data, and why nothing dies unseen by that.
var silences = map[string]string{
	"ApiErrorsAlarm":           "there are no requests",
	"ApiConcurrencyAlarm":      "there are no requests",
	"DatabaseStorageAlarm":     "a stopped database raises api-errors and canary",
	"DatabaseConnectionsAlarm": "a stopped database raises api-errors and canary",
	"ReplicationSlotLagAlarm":  "without a slot the alarms of the relay's stack fire, and canary",
	"StreamThrottledAlarm":     "nothing is written, and the alarms of the relay's stack see why",
	"ConsumerLagAlarm":         "stream-unread sees that nobody reads, and consumer-silent that nobody is invoked",
	"ConsumerErrorsAlarm":      "stream-unread sees that nobody reads, and consumer-silent that nobody is invoked",
	"ConsumerSilentAlarm":      "nothing comes in; stream-unread sees whether what came in before is read",
	"CommitToBusAlarm":         "nothing was published, and canary sees that",
	"MisplacedAlarm":           "stream-unread sees that nobody reads, and consumer-silent that nobody is invoked",
	"ConsumerFailuresAlarm":    "SQS stops measuring an idle queue",
	"ConsumerDiscardsAlarm":    "SQS stops measuring an idle queue",
	"CarStatsFailuresAlarm":    "SQS stops measuring an idle queue",
	"CarStatsLagAlarm":         "SQS stops measuring an idle queue",
	"CarStatsDeliveryAlarm":    "the metric exists only where a delivery fails",
	"CarStatsUndeliveredAlarm": "the metric exists only where a delivery fails",
	"EventBusLogAlarm":         "the metric exists only where a delivery fails, and canary reads the log",
}

func TestNoAlarmIsSilentForAnUnknownReason(t *testing.T) {
	t.Parallel()
	prod := packaged(t, "prod") // in dev the canary is off
	for id := range alarms {
		alarm := prod.Resources[id].Properties
		_, reports := alarm["InsufficientDataActions"]
		require.Equal(t, silences[id] == "", reports || alarm["TreatMissingData"] == "breaching", id)
	}
}

func TestAlarmsReachSomebody(t *testing.T) {
	t.Parallel()
	require.Empty(t, packaged(t, "dev").Resources["AlarmTopic"].get(t, "Subscription"), "SNS refuses an empty address")
	require.Equal(t, []any{map[string]any{"Protocol": "email", "Endpoint": "ops@example.com"}},
		withParameters(t).Resources["AlarmTopic"].get(t, "Subscription"))
}

var substituted = regexp.MustCompile(`\$\{([A-Za-z]+)[^}]*\}`)

func TestDashboard(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		body := s.Resources["Dashboard"].get(t, "DashboardBody", "Fn::Sub").(string)
		for _, match := range substituted.FindAllStringSubmatch(body, -1) {
			if match[1] != "AWS" {
				require.Contains(t, s.Resources, match[1])
			}
		}
		var dashboard struct {
			Widgets []struct {
				Type       string
				Properties struct{ Title string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(substituted.ReplaceAllString(body, "x")), &dashboard))
		var titles strings.Builder
		for _, widget := range dashboard.Widgets {
			titles.WriteString(widget.Properties.Title)
		}
		for _, hop := range []string{"①", "②", "③", "④", "⑤", "⑥"} {
			require.Contains(t, titles.String(), hop)
		}
		for id := range alarms {
			require.Contains(t, body, "${"+id+".Arn}")
		}
	})
}

// Our own metrics have data only under the names that the code gives them.
func TestOwnMetricsAreTheCodes(t *testing.T) {
	written := map[string]bool{}
	for _, file := range []string{
		"handlers/cdcconsumer/log.go", "handlers/carstats/carstats.go", "handlers/carstats/held.go", "walrelay/put.go", "walrelay/measure.go",
	} {
		code, err := os.ReadFile(filepath.Join("..", file))
		require.NoError(t, err)
		found := regexp.MustCompile(`emf\.Metric\{Name: "(\w+)"|\{Name: "(\w+)", Unit: emf`).FindAllStringSubmatch(string(code), -1)
		require.NotEmpty(t, found, file)
		for _, m := range found {
			written[m[1]+m[2]] = true
		}
	}
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		var dashboard struct {
			Widgets []struct {
				Properties struct{ Metrics [][]any }
			}
		}
		body := s.Resources["Dashboard"].get(t, "DashboardBody", "Fn::Sub").(string)
		require.NoError(t, json.Unmarshal([]byte(substituted.ReplaceAllString(body, "x")), &dashboard))
		shown := map[string]bool{}
		for _, widget := range dashboard.Widgets {
			namespace := any("")
			for _, metric := range widget.Properties.Metrics {
				if metric[0] == "..." {
					continue
				}
				if metric[0] != "." {
					namespace = metric[0]
				}
				if namespace == emf.Namespace {
					shown[metric[1].(string)] = true
				}
			}
		}
		require.Equal(t, written, shown)
		require.Contains(t, written, s.Resources["CommitToBusAlarm"].get(t, "MetricName"))
		require.Equal(t, "p99", s.Resources["CommitToBusAlarm"].get(t, "ExtendedStatistic"))
	})
}

func TestXRayTracesWhatAWSSeesByItself(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		require.Equal(t, true, s.Resources["ApiStage"].get(t, "TracingEnabled"))
		for _, id := range []string{"CreateCarLambdaFunction", "CarStatsLambdaFunction"} {
			require.Equal(t, "Active", s.Resources[id].get(t, "TracingConfig", "Mode"))
		}
	})
}
