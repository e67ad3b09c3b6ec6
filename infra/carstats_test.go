package infra_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const statsMappingID = "CarStatsEventSourceMappingSQSCarStatsQueue"

// The subscriber loses events if one of these settings is wrong.
func TestCarStatsGetsEveryEventOfCars(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		arn := func(id string) any { return map[string]any{"Fn::GetAtt": []any{id, "Arn"}} }
		rule := s.Resources["CarStatsRule"]
		require.Equal(t, map[string]any{"Ref": "OutboxEventBus"}, rule.get(t, "EventBusName"))
		require.Equal(t, map[string]any{
			"source": []any{"outbox.car"}, "detail-type": []any{"CarCreated", "CarUpdated", "CarDeleted"},
		}, rule.get(t, "EventPattern"))
		require.NotContains(t, rule.Properties, "State")
		require.Equal(t, []any{map[string]any{
			"Id": "queue", "Arn": arn("CarStatsQueue"), "DeadLetterConfig": map[string]any{"Arn": arn("CarStatsFailures")},
		}}, rule.get(t, "Targets"), "the envelope as it is: no transformer; no role, which queues do not take")

		// A delivery before the policy exists is denied, and not tried again.
		require.Contains(t, rule.DependsOn, "CarStatsQueuePolicy")
		name := rule.get(t, "Name").(string)
		require.Regexp(t, `^rds-outbox-demo-(dev|prod)-car-stats$`, name)
		policy := s.Resources["CarStatsQueuePolicy"]
		require.Equal(t, []any{map[string]any{"Ref": "CarStatsQueue"}, map[string]any{"Ref": "CarStatsFailures"}}, policy.get(t, "Queues"))
		require.Equal(t, []any{map[string]any{
			"Effect": "Allow", "Principal": map[string]any{"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
			"Resource": []any{arn("CarStatsQueue"), arn("CarStatsFailures")},
			"Condition": map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": map[string]any{
				"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${OutboxEventBus}/" + name,
			}}},
		}}, policy.get(t, "PolicyDocument", "Statement"))
	})
}

func TestCarStatsTriesLongAndParksThen(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		mapping, queue := s.Resources[statsMappingID], s.Resources["CarStatsQueue"]
		require.Equal(t, []any{"ReportBatchItemFailures"}, mapping.get(t, "FunctionResponseTypes"))
		require.Equal(t, true, mapping.get(t, "Enabled"))
		require.NotContains(t, mapping.Properties, "FilterCriteria", "what a filter leaves out is deleted")
		require.Equal(t, map[string]any{"Fn::GetAtt": []any{"CarStatsQueue", "Arn"}}, mapping.get(t, "EventSourceArn"))

		visibility := queue.number(t, "VisibilityTimeout")
		require.GreaterOrEqual(t, visibility, 6*s.Resources["CarStatsLambdaFunction"].number(t, "Timeout"))
		require.Equal(t, map[string]any{"Fn::GetAtt": []any{"CarStatsFailures", "Arn"}}, queue.get(t, "RedrivePolicy", "deadLetterTargetArn"))
		tries := visibility * queue.number(t, "RedrivePolicy", "maxReceiveCount")
		require.GreaterOrEqual(t, tries, 3600.0, "a database that fails over parks nothing")
		require.Less(t, s.Resources["CarStatsLagAlarm"].number(t, "Threshold"), tries/2, "long before messages are parked")
	})
}
