package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func walrelaySetup(t *testing.T) map[string]any {
	t.Helper()
	return labtest.Template(t, "walrelay-setup.yaml")
}

// broad has the actions that can only be allowed for *.
var broad = map[string]bool{"ecr:GetAuthorizationToken": true, "logs:GetQueryResults": true, "logs:StopQuery": true}

func TestWalrelaySetupGrantsSingleResources(t *testing.T) {
	t.Parallel()
	may := map[string]string{} // role to its actions
	for name, resource := range at(t, walrelaySetup(t), "Resources").(map[string]any) {
		if at(t, resource, "Type") != "AWS::IAM::Role" {
			continue
		}
		require.NotContains(t, at(t, resource, "Properties"), "ManagedPolicyArns", name)
		for _, policy := range at(t, resource, "Properties", "Policies").([]any) {
			for _, statement := range at(t, policy, "PolicyDocument", "Statement").([]any) {
				for _, action := range at(t, statement, "Action").([]any) {
					may[name] += action.(string) + " "
					require.NotContains(t, action, "*", name)
					require.Equal(t, broad[action.(string)], at(t, statement, "Resource") == "*", "%s %s", name, action)
				}
			}
		}
	}
	require.Equal(t, map[string]string{
		"ExecutionRole": "ecr:GetAuthorizationToken ecr:BatchGetImage ecr:GetDownloadUrlForLayer ecr:BatchCheckLayerAvailability logs:CreateLogStream logs:PutLogEvents ",
		"RelayRole":     "kinesis:DescribeStreamSummary kinesis:PutRecords secretsmanager:GetSecretValue ",
		"OperatorRole": "kinesis:DescribeStreamSummary kinesis:ListShards kinesis:GetShardIterator kinesis:GetRecords kinesis:PutRecords " +
			"logs:StartQuery logs:GetQueryResults logs:StopQuery secretsmanager:GetSecretValue " +
			"sqs:ReceiveMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes sqs:DeleteMessage ",
	}, may)
}

// TestWalrelayEndpointsAdmitWhatTheRolesMay compares the policy of each endpoint with the roles. An endpoint without a policy admits
// everything. One that admits less than the roles stops the tasks.
func TestWalrelayEndpointsAdmitWhatTheRolesMay(t *testing.T) {
	t.Parallel()
	services := map[string]string{"EcrApiEndpoint": "ecr", "EcrDkrEndpoint": "ecr", "LogsEndpoint": "logs", "SqsEndpoint": "sqs"}
	may, admits := map[string][]any{}, map[string][]any{} // service and action to resources
	for name, resource := range at(t, walrelaySetup(t), "Resources").(map[string]any) {
		switch at(t, resource, "Type") {
		case "AWS::IAM::Role":
			for _, policy := range at(t, resource, "Properties", "Policies").([]any) {
				for _, statement := range at(t, policy, "PolicyDocument", "Statement").([]any) {
					for _, action := range at(t, statement, "Action").([]any) {
						for endpoint, service := range services {
							if strings.HasPrefix(action.(string), service+":") {
								key := endpoint + " " + action.(string)
								may[key] = append(may[key], at(t, statement, "Resource"))
							}
						}
					}
				}
			}
		case "AWS::EC2::VPCEndpoint":
			require.Contains(t, services, name)
			for _, statement := range at(t, resource, "Properties", "PolicyDocument", "Statement").([]any) {
				require.Equal(t, "Allow", at(t, statement, "Effect"), name)
				require.Equal(t, "*", at(t, statement, "Principal"), name)
				for _, action := range at(t, statement, "Action").([]any) {
					key := name + " " + action.(string)
					admits[key] = append(admits[key], at(t, statement, "Resource"))
				}
			}
		}
	}
	require.NotEmpty(t, may)
	require.Equal(t, may, admits)
}

// TestWalrelaySetupKeepsARelayRunning checks the settings that keep one task at the slot through
// deployments, loss of a zone and rotated passwords.
func TestWalrelaySetupKeepsARelayRunning(t *testing.T) {
	t.Parallel()
	resources := at(t, walrelaySetup(t), "Resources")
	service := at(t, resources, "Service", "Properties")
	require.EqualValues(t, 2, at(t, walrelaySetup(t), "Parameters", "Tasks", "Default"), "one streams, one stands by")
	require.EqualValues(t, 100, at(t, service, "DeploymentConfiguration", "MinimumHealthyPercent"))
	require.EqualValues(t, 200, at(t, service, "DeploymentConfiguration", "MaximumPercent"))
	require.Equal(t, map[string]any{"Enable": true, "Rollback": true}, at(t, service, "DeploymentConfiguration", "DeploymentCircuitBreaker"))
	for _, id := range []string{"TaskDefinition", "OperatorTaskDefinition"} {
		task := at(t, resources, id, "Properties")
		container := at(t, task, "ContainerDefinitions").([]any)[0]
		require.Equal(t, "ARM64", at(t, task, "RuntimePlatform", "CpuArchitecture"), "what infra/image builds")
		require.Equal(t, true, at(t, container, "ReadonlyRootFilesystem"))
		require.Equal(t, "65532:65532", at(t, container, "User"))
		require.NotContains(t, container, "Secrets", "ECS would read a password once, and never again after it was rotated")
	}
	relay := at(t, resources, "TaskDefinition", "Properties", "ContainerDefinitions").([]any)[0]
	const drain = 3 // seconds, as in walrelay/cmd/walrelay
	require.Greater(t, at(t, relay, "StopTimeout"), drain)
	require.Equal(t, "non-blocking", at(t, relay, "LogConfiguration", "Options", "mode"))
	operator := at(t, resources, "OperatorTaskDefinition", "Properties", "ContainerDefinitions").([]any)[0]
	require.Equal(t, []any{"/outboxctl"}, at(t, operator, "EntryPoint"))
	require.Equal(t, "blocking", at(t, operator, "LogConfiguration", "Options", "mode"))
	require.Equal(t, "IMMUTABLE", at(t, resources, "ImageRepository", "Properties", "ImageTagMutability"))
	object(t, at(t, resources, "ImageRepository", "Properties", "LifecyclePolicy", "LifecyclePolicyText"))
	script, err := os.ReadFile("run-outboxctl.sh")
	require.NoError(t, err)
	require.Contains(t, at(t, operator, "Environment"), map[string]any{"Name": "LAST_LINE", "Value": "outboxctl: end"})
	require.Contains(t, string(script), "last='outboxctl: end'\n")
}

// TestWalrelaySetupGivesWhatIsRead compares the containers' environments with what the programs read.
func TestWalrelaySetupGivesWhatIsRead(t *testing.T) {
	t.Parallel()
	reads := regexp.MustCompile(`(?:os\.Getenv|getenv)\("([A-Z_]+)"\)`)
	for id, folders := range map[string][]string{
		"TaskDefinition": {"walrelay/cmd/walrelay", "internal/rdsdb"}, "OperatorTaskDefinition": {"outboxctl/cmd/outboxctl", "internal/rdsdb"},
	} {
		read := ""
		for _, folder := range folders {
			files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
			require.NoError(t, err)
			for _, file := range files {
				source, err := os.ReadFile(file)
				require.NoError(t, err)
				for _, match := range reads.FindAllStringSubmatch(string(source), -1) {
					read += " " + match[1] + " "
				}
			}
		}
		container := at(t, walrelaySetup(t), "Resources", id, "Properties", "ContainerDefinitions").([]any)[0]
		given := ""
		for _, variable := range at(t, container, "Environment").([]any) {
			name := at(t, variable, "Name").(string)
			given += name + " "
			require.True(t, name == "AWS_REGION" || strings.Contains(read, " "+name+" "), "%s of %s is read by nobody", name, id)
		}
		for _, name := range []string{"STREAM_NAME", "SLOT_NAME", "DB_HOST", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "DB_SSL"} {
			require.Contains(t, given, name+" ", id)
		}
	}
}

func TestWalrelaySetupTellsSomebody(t *testing.T) {
	t.Parallel()
	resources := at(t, walrelaySetup(t), "Resources").(map[string]any)
	for id, missing := range map[string]string{"WalrelaySilentAlarm": "breaching", "WalrelayLagAlarm": "notBreaching", "WalrelayReorderedAlarm": "notBreaching"} {
		alarm := at(t, resources, id, "Properties")
		require.Equal(t, []any{map[string]any{"Ref": "AlarmTopicArn"}}, at(t, alarm, "AlarmActions"), id)
		require.Regexp(t, `First: .+docs/operations\.md#[a-z-]+`, at(t, alarm, "AlarmDescription"), id)
		require.Equal(t, missing, at(t, alarm, "TreatMissingData"), id)
		require.Equal(t, "rds-outbox-demo", at(t, alarm, "Namespace"), id)
		require.Equal(t, []any{
			map[string]any{"Name": "StreamName", "Value": map[string]any{"Ref": "KinesisStreamName"}}, // two stages have the same slot name
			map[string]any{"Name": "SlotName", "Value": map[string]any{"Ref": "SlotName"}},
		}, at(t, alarm, "Dimensions"), id)
	}
	silent := at(t, resources, "WalrelaySilentAlarm", "Properties")
	// With missing data breaching, a new alarm would ring before the first task has written a line.
	require.Equal(t, []any{"Service"}, at(t, resources, "WalrelaySilentAlarm", "DependsOn"))
	require.Equal(t, "Relays", at(t, resources, "WalrelaySilentAlarm", "Condition"))
	require.Equal(t, []any{map[string]any{"Condition": "HasImage"}, map[string]any{"Fn::Not": []any{map[string]any{"Fn::Equals": []any{map[string]any{"Ref": "Tasks"}, 0}}}}},
		at(t, walrelaySetup(t), "Conditions", "Relays", "Fn::And"), "no task is wanted while the slot of DMS is copied")
	require.Equal(t, "streaming", at(t, silent, "MetricName"))
	require.Equal(t, "Maximum", at(t, silent, "Statistic"), "a standby's 0 does not count against the one that streams")
	require.Equal(t, 5*60, at(t, silent, "Period").(int)*at(t, silent, "EvaluationPeriods").(int))
	stopped := at(t, resources, "TaskStopped", "Properties")
	detail := at(t, stopped, "EventPattern", "detail")
	require.Equal(t, []any{"STOPPED"}, at(t, detail, "lastStatus"))
	require.Equal(t, []any{"service:walrelay"}, at(t, detail, "group"), "an audit that finds something is no alarm")
	require.Equal(t, map[string]any{"Ref": "AlarmTopicArn"}, at(t, at(t, stopped, "Targets").([]any)[0], "Arn"))
}

// TestDeployWalrelayGivesEveryParameter checks that the script gives every parameter, because
// CloudFormation refuses a stack without one.
func TestDeployWalrelayGivesEveryParameter(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("deploy-walrelay.sh")
	require.NoError(t, err)
	for name, parameter := range at(t, walrelaySetup(t), "Parameters").(map[string]any) {
		if _, defaulted := parameter.(map[string]any)["Default"]; !defaulted {
			require.Contains(t, string(script), `"`+name+`=$`)
		}
	}
}
