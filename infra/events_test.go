package infra_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each test here is about a setting that loses events if it is wrong.

const mappingID = "CdcConsumerEventSourceMappingKinesisOutboxStream"

func TestLambdaGivesUpAfterNobodyElse(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		require.Equal(t, []string{statsMappingID, mappingID}, s.of("AWS::Lambda::EventSourceMapping"))
		mapping := s.Resources[mappingID].Properties
		for name, value := range map[string]any{
			"Enabled":                    true,
			"StartingPosition":           "TRIM_HORIZON",
			"FunctionResponseTypes":      []any{"ReportBatchItemFailures"},
			"BisectBatchOnFunctionError": true,
			"MaximumRetryAttempts":       -1.0,
			"BatchSize":                  100.0,
			"ParallelizationFactor":      2.0,
			"EventSourceArn":             map[string]any{"Fn::GetAtt": []any{"OutboxStream", "Arn"}},
			"DestinationConfig":          map[string]any{"OnFailure": map[string]any{"Destination": map[string]any{"Fn::GetAtt": []any{"ConsumerDiscards", "Arn"}}}},
		} {
			require.Equal(t, value, mapping[name], name)
		}
		require.NotContains(t, mapping, "FilterCriteria", "a filter on data drops what is not JSON")
		require.NotContains(t, mapping, "TumblingWindowInSeconds")

		age, retention := mapping["MaximumRecordAgeInSeconds"].(float64), s.Resources["OutboxStream"].number(t, "RetentionPeriodHours")*3600
		require.Less(t, age, retention, "the message about a discarded batch must find its records still there")
		require.GreaterOrEqual(t, age, retention-2*3600)
	})
}

func TestStreamKeepsAWeek(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		require.Equal(t, []string{"OutboxStream"}, s.of("AWS::Kinesis::Stream"))
		stream := s.Resources["OutboxStream"]
		require.EqualValues(t, 168, stream.number(t, "RetentionPeriodHours"))
		require.Equal(t, map[string]any{"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}, stream.get(t, "StreamEncryption"))
	})
}

func TestQueuesKeepTwoWeeks(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		queues := s.of("AWS::SQS::Queue")
		require.Equal(t, []string{"CarStatsFailures", "CarStatsQueue", "ConsumerDiscards", "ConsumerFailures"}, queues)
		for _, id := range queues {
			require.EqualValues(t, 1209600, s.Resources[id].number(t, "MessageRetentionPeriod"), id)
			require.Equal(t, true, s.Resources[id].get(t, "SqsManagedSseEnabled"), id)
			require.NotContains(t, s.Resources[id].Properties, "FifoQueue", "the consumer sends no message group")
		}
	})
}

func TestDatabaseCanBeDecoded(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		database, parameters := s.Resources["Database"], s.Resources["DatabaseParameters"]
		require.Equal(t, map[string]any{"Ref": "DatabaseParameters"}, database.get(t, "DBParameterGroupName"))
		require.Equal(t, "postgres", database.get(t, "Engine"))
		require.Equal(t, "17", database.get(t, "EngineVersion"), "DMS 3.6.1 knows 17 at most")
		require.Equal(t, "postgres17", parameters.get(t, "Family"))
		require.Equal(t, false, database.get(t, "AllowMajorVersionUpgrade"), "a major upgrade loses the slot")

		require.Equal(t, "1", parameters.get(t, "Parameters", "rds.logical_replication"))
		require.NotContains(t, parameters.get(t, "Parameters"), "idle_in_transaction_session_timeout", "DMS keeps transactions open")
		timeout := parameter(t, s, "wal_sender_timeout")
		require.GreaterOrEqual(t, timeout, 10_000.0, "DMS refuses less")
		require.Less(t, timeout, 300_000.0, "DMS refuses more")

		const mib = 1 << 20
		keep := parameter(t, s, "max_slot_wal_keep_size") * mib
		storage, err := strconv.ParseFloat(database.get(t, "AllocatedStorage").(string), 64)
		require.NoError(t, err)
		require.Positive(t, keep)
		require.Less(t, keep, storage*1024*mib/2, "WAL may not fill the disk")
		lag, free := s.Resources["ReplicationSlotLagAlarm"].number(t, "Threshold"), s.Resources["DatabaseStorageAlarm"].number(t, "Threshold")
		require.LessOrEqual(t, lag, keep/4, "the alarm leaves time to act")
		require.Less(t, keep+free, storage*1024*mib, "a slot at its limit alone does not raise the disk's alarm")
	})
}

func parameter(t testing.TB, s *stack, name string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s.Resources["DatabaseParameters"].get(t, "Parameters", name).(string), 64)
	require.NoError(t, err)
	return n
}

// The original's bus log never gets an event, because CloudWatch Logs accepts them only if a
// resource policy allows it.
func TestBusLogIsAllowedToArrive(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		bus := map[string]any{"Ref": "OutboxEventBus"}
		require.Equal(t, []string{beatID, askID, "CarStatsRule", "LogEveryEvent", scheduleID}, s.of("AWS::Events::Rule"))
		rule := s.Resources["LogEveryEvent"]
		require.Equal(t, bus, rule.get(t, "EventBusName"))
		require.Equal(t, map[string]any{"source": []any{map[string]any{"prefix": ""}}}, rule.get(t, "EventPattern"))
		require.NotContains(t, rule.Properties, "State")
		target := rule.get(t, "Targets", 0, "Arn", "Fn::Sub").(string)
		require.Equal(t, "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${EventBusLogGroup}", target)
		require.Equal(t, "/aws/events/rds-outbox-demo-"+stage, s.Resources["EventBusLogGroup"].get(t, "LogGroupName"))

		require.Contains(t, rule.DependsOn, "EventBusLogPolicy")
		var policy struct {
			Statement []struct {
				Effect, Resource, Action string
				Principal                struct{ Service []string }
				Condition                map[string]map[string]string
			}
		}
		document := s.Resources["EventBusLogPolicy"].get(t, "PolicyDocument", "Fn::Sub").(string)
		require.NoError(t, json.Unmarshal([]byte(document), &policy))
		require.Len(t, policy.Statement, 2)
		for _, statement := range policy.Statement {
			require.Equal(t, "Allow", statement.Effect)
			require.ElementsMatch(t, []string{"events.amazonaws.com", "delivery.logs.amazonaws.com"}, statement.Principal.Service)
			require.Equal(t, "${EventBusLogGroup.Arn}", statement.Resource)
		}
		require.Equal(t, "logs:CreateLogStream", policy.Statement[0].Action)
		require.Equal(t, "logs:PutLogEvents", policy.Statement[1].Action)
		// audit believes the log, so no other rule may write to it.
		writer := "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${OutboxEventBus}/" + rule.get(t, "Name").(string)
		require.Equal(t, map[string]map[string]string{"ArnEquals": {"aws:SourceArn": writer}}, policy.Statement[1].Condition)
	})
}

func TestBusIsArchived(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		archive := s.Resources["OutboxEventArchive"]
		require.Equal(t, map[string]any{"Fn::GetAtt": []any{"OutboxEventBus", "Arn"}}, archive.get(t, "SourceArn"))
		require.EqualValues(t, 14, archive.number(t, "RetentionDays"))
		require.NotContains(t, archive.Properties, "EventPattern")
	})
}

const scheduleID = "RetentionEventsRuleSchedule1"

const beatID = "CanaryEventsRuleSchedule1"

const askID = "CarStatsEventsRuleSchedule1"

// With carStatsInOrder, a function that nothing wakes would never ask for the events that it waits
// for.
func TestCarStatsCountsInOrderByOneParameter(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		require.Equal(t, "DISABLED", s.Resources[askID].get(t, "State"))
		variables := s.Resources["CarStatsLambdaFunction"].get(t, "Environment", "Variables").(map[string]any)
		require.Equal(t, "false", variables["IN_ORDER"])
	})
	s := withParameters(t)
	require.Equal(t, "ENABLED", s.Resources[askID].get(t, "State"))
	require.Equal(t, "rate(1 minute)", s.Resources[askID].get(t, "ScheduleExpression"))
	variables := s.Resources["CarStatsLambdaFunction"].get(t, "Environment", "Variables").(map[string]any)
	require.Equal(t, "true", variables["IN_ORDER"])
}

// In an idle dev stage no beats may appear among the events. In prod a broken path must not look
// like an idle one.
func TestTheCanaryBeatsInProd(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		beat := s.Resources[beatID]
		require.Equal(t, map[string]string{"dev": "DISABLED", "prod": "ENABLED"}[stage], beat.get(t, "State"))
		require.Equal(t, "rate(1 minute)", beat.get(t, "ScheduleExpression"))
		require.NotContains(t, beat.Properties, "EventBusName", "rules with a schedule are on the default bus")
		rule := s.Resources["CarStatsRule"].get(t, "EventPattern")
		require.NotContains(t, jsonOf(t, rule), "anary", "a subscriber does not get the beats")
	})
}

// Rows are deleted only after the stream has forgotten their records, and only if retentionEnabled
// is set, because under DMS it is not documented what the slot's position proves. Idempotency keys
// are deleted in any case, so the function always runs.
func TestRetentionIsOffAndLongerThanTheStream(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		schedule := s.Resources[scheduleID]
		require.Equal(t, "ENABLED", schedule.get(t, "State"))
		require.Equal(t, "rate(1 hour)", schedule.get(t, "ScheduleExpression"))
		variables := s.Resources["RetentionLambdaFunction"].get(t, "Environment", "Variables").(map[string]any)
		require.Equal(t, "false", variables["RETENTION_ENABLED"])
		require.Equal(t, "14", variables["RETENTION_DAYS"])
		require.EqualValues(t, 14, s.Outputs["RetentionDays"].(map[string]any)["Value"], "what outboxctl purge keeps")
		require.Equal(t, "outbox_relay", variables["SLOT_NAME"])
		require.Equal(t, fmt.Sprint(s.Resources["OutboxStream"].number(t, "RetentionPeriodHours")), variables["STREAM_RETENTION_HOURS"])
	})
}

func TestRetentionIsSwitchedOnByOneParameter(t *testing.T) {
	t.Parallel()
	s := withParameters(t)
	require.Equal(t, "ENABLED", s.Resources[scheduleID].get(t, "State"))
	require.Equal(t, "true", s.Resources["RetentionLambdaFunction"].get(t, "Environment", "Variables", "RETENTION_ENABLED"))
}
