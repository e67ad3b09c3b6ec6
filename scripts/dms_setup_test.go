package scripts

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// at follows keys into nested objects.
func at(t *testing.T, value any, keys ...string) any {
	t.Helper()
	for _, key := range keys {
		object, ok := value.(map[string]any)
		require.True(t, ok, "%v: no object around %s", keys, key)
		value, ok = object[key]
		require.True(t, ok, "%v: no %s", keys, key)
	}
	return value
}

func object(t *testing.T, value any) map[string]any {
	t.Helper()
	var all map[string]any
	require.NoError(t, json.Unmarshal([]byte(value.(string)), &all), "valid JSON before any substitution")
	return all
}

// TestDMSSetupKeepsEvents checks every setting with which DMS could lose, cut or reorder events
// while its task looks fine.
func TestDMSSetupKeepsEvents(t *testing.T) {
	t.Parallel()
	resources := at(t, labtest.Template(t, "dms-setup.yaml"), "Resources")
	task := at(t, resources, "DmsReplicationTask", "Properties")
	source := at(t, resources, "DmsSourceEndpoint", "Properties")
	target := at(t, resources, "DmsTargetEndpoint", "Properties", "KinesisSettings")
	instance := at(t, resources, "DmsReplicationInstance", "Properties")
	settings := object(t, at(t, task, "ReplicationTaskSettings"))

	t.Run("RowsFromBeforeTheSlotAreLoaded", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "full-load-and-cdc", at(t, task, "MigrationType"))
		require.Equal(t, "DO_NOTHING", at(t, settings, "FullLoadSettings", "TargetTablePrepMode"))
		require.Equal(t, false, at(t, settings, "FullLoadSettings", "StopTaskCachedChangesApplied"))
		require.Equal(t, false, at(t, settings, "FullLoadSettings", "StopTaskCachedChangesNotApplied"))
	})
	t.Run("NoErrorIsLoggedAndPassedOver", func(t *testing.T) {
		t.Parallel()
		policies := 0
		for name, value := range at(t, settings, "ErrorBehavior").(map[string]any) {
			if strings.HasSuffix(name, "Policy") {
				policies++
				require.Equal(t, "STOP_TASK", value, name)
			}
		}
		for _, name := range []string{"DataErrorPolicy", "DataTruncationErrorPolicy", "DataErrorEscalationPolicy", "TableErrorPolicy",
			"TableErrorEscalationPolicy", "ApplyErrorInsertPolicy", "ApplyErrorEscalationPolicy", "EventErrorPolicy"} {
			at(t, settings, "ErrorBehavior", name) // with the default of each, the task would go on
		}
		require.Equal(t, 10, policies)
		require.EqualValues(t, -1, at(t, settings, "ErrorBehavior", "RecoverableErrorCount"))
		require.Equal(t, false, at(t, settings, "ErrorBehavior", "RecoverableErrorStopRetryAfterThrottlingMax"))
		require.Equal(t, true, at(t, settings, "ErrorBehavior", "FailOnNoTablesCaptured"))
	})
	t.Run("PayloadsAreNeverCut", func(t *testing.T) {
		t.Parallel()
		metadata := at(t, settings, "TargetMetadata")
		require.Equal(t, true, at(t, metadata, "SupportLobs"))
		require.Equal(t, false, at(t, metadata, "FullLobMode"), "Kinesis takes none")
		require.Equal(t, true, at(t, metadata, "LimitedSizeLobMode"))
		const largest = 60 // KiB of text (outbox_event_data_size_check)
		require.GreaterOrEqual(t, at(t, metadata, "LobMaxSize"), float64(4*largest))
		require.Equal(t, true, at(t, source, "PostgreSqlSettings", "FailTasksOnLobTruncation"))
	})
	t.Run("OrderAndPartitionKey", func(t *testing.T) {
		t.Parallel()
		metadata := at(t, settings, "TargetMetadata")
		require.Equal(t, false, at(t, metadata, "BatchApplyEnabled"))
		require.EqualValues(t, 0, at(t, metadata, "ParallelApplyThreads"))
		require.EqualValues(t, 0, at(t, metadata, "ParallelLoadThreads"))
		rules := at(t, object(t, at(t, task, "TableMappings")), "rules").([]any)
		require.Len(t, rules, 2)
		outbox := map[string]any{"schema-name": "public", "table-name": "outbox"}
		require.Equal(t, "selection", at(t, rules[0], "rule-type"))
		require.Equal(t, "include", at(t, rules[0], "rule-action"))
		require.Equal(t, outbox, at(t, rules[0], "object-locator"))
		require.Equal(t, "object-mapping", at(t, rules[1], "rule-type"))
		require.Equal(t, outbox, at(t, rules[1], "object-locator"))
		require.Equal(t, map[string]any{"partition-key-type": "attribute-name", "partition-key-name": "aggregate_id"}, at(t, rules[1], "mapping-parameters"))
		require.NotEqual(t, at(t, rules[0], "rule-id"), at(t, rules[1], "rule-id"))
	})
	t.Run("SourceReadsTheWAL", func(t *testing.T) {
		t.Parallel()
		postgres := at(t, source, "PostgreSqlSettings")
		require.Equal(t, "test-decoding", at(t, postgres, "PluginName"))
		require.Equal(t, false, at(t, postgres, "CaptureDdls"))
		require.Equal(t, true, at(t, postgres, "HeartbeatEnable"))
		require.Equal(t, "dms_heartbeat", at(t, postgres, "HeartbeatSchema"), "package dbuser makes this schema")
		require.Contains(t, []any{"require", "verify-ca", "verify-full"}, at(t, source, "SslMode"))
		require.NotContains(t, source, "Password")
		require.Equal(t, map[string]any{"Ref": "DmsDatabaseSecretArn"}, at(t, postgres, "SecretsManagerSecretId"))
		statement := at(t, resources, "DmsSecretRole", "Properties", "AssumeRolePolicyDocument", "Statement").([]any)[0]
		require.Equal(t, map[string]any{"Fn::Sub": "dms.${AWS::Region}.amazonaws.com"}, at(t, statement, "Principal", "Service"))
	})
	t.Run("RoleOfTheTargetIsForThisAccountOnly", func(t *testing.T) {
		t.Parallel()
		statements := at(t, resources, "DmsKinesisRole", "Properties", "AssumeRolePolicyDocument", "Statement").([]any)
		require.Len(t, statements, 1)
		require.Equal(t, map[string]any{
			"StringEquals": map[string]any{"aws:SourceAccount": map[string]any{"Ref": "AWS::AccountId"}},
			"ArnLike":      map[string]any{"aws:SourceArn": map[string]any{"Fn::Sub": "arn:${AWS::Partition}:dms:${AWS::Region}:${AWS::AccountId}:*"}},
		}, at(t, statements[0], "Condition"))
	})
	t.Run("RecordsAreComplete", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "json-unformatted", at(t, target, "MessageFormat"))
		require.Equal(t, true, at(t, target, "IncludeTransactionDetails"))
		require.Equal(t, true, at(t, target, "IncludePartitionValue"))
		require.Equal(t, true, at(t, target, "IncludeNullAndEmpty"))
		for name, value := range at(t, settings, "ControlTablesSettings").(map[string]any) {
			require.Equal(t, false, value, name)
		}
		require.NotContains(t, at(t, settings, "Logging"), "CloudWatchLogGroup", "refused when a task is created")
	})
	t.Run("EngineAndTaskAreNotExchanged", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, map[string]any{"Ref": "EngineVersion"}, at(t, instance, "EngineVersion"))
		require.Equal(t, "3.6.1", at(t, labtest.Template(t, "dms-setup.yaml"), "Parameters", "EngineVersion", "Default"))
		require.Equal(t, false, at(t, instance, "AutoMinorVersionUpgrade"))
		require.Equal(t, map[string]any{"Fn::Sub": "${StackName}-replication-task"}, at(t, task, "ReplicationTaskIdentifier"))
		require.Equal(t, "dms.t3.small", at(t, labtest.Template(t, "dms-setup.yaml"), "Parameters", "ReplicationInstanceClass", "Default"))
	})
}

func TestDMSSetupTellsSomebody(t *testing.T) {
	t.Parallel()
	resources := at(t, labtest.Template(t, "dms-setup.yaml"), "Resources").(map[string]any)
	instance := at(t, resources, "DmsReplicationInstance", "Properties", "ReplicationInstanceIdentifier")
	alarms := 0
	for name, resource := range resources {
		if at(t, resource, "Type") != "AWS::CloudWatch::Alarm" {
			continue
		}
		alarms++
		properties := at(t, resource, "Properties")
		require.Equal(t, []any{map[string]any{"Ref": "AlarmTopicArn"}}, at(t, properties, "AlarmActions"), name)
		require.Contains(t, at(t, properties, "AlarmDescription"), "First:", name)
		dimensions := map[any]any{}
		for _, d := range at(t, properties, "Dimensions").([]any) {
			dimensions[at(t, d, "Name")] = at(t, d, "Value")
		}
		require.Equal(t, instance, dimensions["ReplicationInstanceIdentifier"], name)
		if strings.HasPrefix(at(t, properties, "MetricName").(string), "CDC") {
			require.Equal(t, at(t, resources, "DmsReplicationTask", "Properties", "ResourceIdentifier"), dimensions["ReplicationTaskIdentifier"], name)
		}
	}
	require.Equal(t, 4, alarms)
	latency := at(t, resources, "DmsSourceLatencyAlarm", "Properties")
	require.Equal(t, "missing", at(t, latency, "TreatMissingData"), "a new stack has no data before the task is started, which is no incident")
	require.Equal(t, []any{map[string]any{"Ref": "AlarmTopicArn"}}, at(t, latency, "InsufficientDataActions"), "data that ends: no task")
	events := at(t, resources, "DmsTaskEvents", "Properties")
	require.Equal(t, "replication-task", at(t, events, "SourceType"))
	require.Contains(t, at(t, events, "EventCategories"), "failure")
	require.Equal(t, []any{at(t, resources, "DmsReplicationTask", "Properties", "ReplicationTaskIdentifier")}, at(t, events, "SourceIds"))
}

func TestDMSSetupGrantsSingleResources(t *testing.T) {
	t.Parallel()
	for name, resource := range at(t, labtest.Template(t, "dms-setup.yaml"), "Resources").(map[string]any) {
		if at(t, resource, "Type") != "AWS::IAM::Role" {
			continue
		}
		for _, policy := range at(t, resource, "Properties", "Policies").([]any) {
			for _, statement := range at(t, policy, "PolicyDocument", "Statement").([]any) {
				require.NotEmpty(t, at(t, statement, "Resource", "Ref"), name)
				for _, action := range at(t, statement, "Action").([]any) {
					require.NotContains(t, action, "*", name)
				}
			}
		}
	}
}

func TestDMSSetupOutputs(t *testing.T) {
	t.Parallel()
	outputs := at(t, labtest.Template(t, "dms-setup.yaml"), "Outputs").(map[string]any)
	require.Len(t, outputs, 4)
	for _, name := range []string{"ReplicationInstanceArn", "ReplicationTaskArn", "SourceEndpointArn", "TargetEndpointArn"} {
		require.Equal(t, map[string]any{"Fn::Sub": "${AWS::StackName}-" + name}, at(t, outputs, name, "Export", "Name"))
	}
}

func TestRelayTemplatesPassCfnLint(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cfn-lint"); err != nil {
		const absent = "cfn-lint is not installed: pip install -r lab/rehearsal/requirements.txt"
		labtest.Missing(t, absent)
	}
	output, err := exec.CommandContext(t.Context(), "cfn-lint", "../dms-setup.yaml", "../walrelay-setup.yaml").CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Empty(t, string(output))
}
