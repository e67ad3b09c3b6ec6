package infra_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// roles has everything that each function may do. It maps an action to the resources that it is
// allowed for.
var roles = map[string]map[string][]string{
	"CreateCarRole": {
		"logs:CreateLogStream": {"CreateCarLogGroup"}, "logs:PutLogEvents": {"CreateCarLogGroup"},
		"secretsmanager:GetSecretValue": {"ApiDatabaseSecret"}, "xray:PutTraceSegments": {"*"}, "xray:PutTelemetryRecords": {"*"},
	},
	"CdcConsumerRole": {
		"logs:CreateLogStream": {"CdcConsumerLogGroup"}, "logs:PutLogEvents": {"CdcConsumerLogGroup"},
		"kinesis:DescribeStream": {"OutboxStream"}, "kinesis:DescribeStreamSummary": {"OutboxStream"}, "kinesis:GetRecords": {"OutboxStream"},
		"kinesis:GetShardIterator": {"OutboxStream"}, "kinesis:ListShards": {"OutboxStream"}, "kinesis:ListStreams": {"OutboxStream"},
		"events:PutEvents": {"OutboxEventBus"}, "events:DescribeEventBus": {"OutboxEventBus"},
		"sqs:SendMessage": {"ConsumerFailures", "ConsumerDiscards"},
	},
	"RetentionRole": {
		"logs:CreateLogStream": {"RetentionLogGroup"}, "logs:PutLogEvents": {"RetentionLogGroup"},
		"secretsmanager:GetSecretValue": {"RetentionDatabaseSecret"},
	},
	"CanaryRole": {
		"logs:CreateLogStream": {"CanaryLogGroup"}, "logs:PutLogEvents": {"CanaryLogGroup"},
		"secretsmanager:GetSecretValue": {"CanaryDatabaseSecret"},
	},
	"CarStatsRole": {
		"logs:CreateLogStream": {"CarStatsLogGroup"}, "logs:PutLogEvents": {"CarStatsLogGroup"},
		"sqs:ReceiveMessage": {"CarStatsQueue"}, "sqs:DeleteMessage": {"CarStatsQueue"}, "sqs:GetQueueAttributes": {"CarStatsQueue"},
		"secretsmanager:GetSecretValue": {"CarStatsDatabaseSecret"}, "xray:PutTraceSegments": {"*"}, "xray:PutTelemetryRecords": {"*"},
	},
	"MigrateRole": {
		"logs:CreateLogStream": {"MigrateLogGroup"}, "logs:PutLogEvents": {"MigrateLogGroup"},
		"secretsmanager:GetSecretValue": {"DatabaseSecret", "ApiDatabaseSecret", "DmsDatabaseSecret", "RetentionDatabaseSecret", "CarStatsDatabaseSecret", "CanaryDatabaseSecret"},
		"secretsmanager:PutSecretValue": {"ApiDatabaseSecret", "DmsDatabaseSecret", "RetentionDatabaseSecret", "CarStatsDatabaseSecret", "CanaryDatabaseSecret"},
	},
}

// interfaces has everything that FunctionNetworkPolicy allows, each action with its resource. No
// role has a policy of AWS's own, because AWS may change such a policy, and those for Lambda let a
// function write into every log group.
var interfaces = map[string]any{
	"ec2:DescribeNetworkInterfaces": "*", "ec2:DescribeSubnets": "*", // they cannot be limited to resources
	"ec2:CreateNetworkInterface": anyInterface, "ec2:DeleteNetworkInterface": anyInterface,
	"ec2:AssignPrivateIpAddresses": anyInterface, "ec2:UnassignPrivateIpAddresses": anyInterface,
}

var anyInterface = map[string]any{"Fn::Sub": "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:*/*"}

func TestOneRolePerFunctionNamesSingleResources(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		require.Len(t, s.of("AWS::IAM::Role"), len(roles))
		require.Empty(t, s.of("AWS::IAM::Policy"))
		if stage == "dev" {
			require.Empty(t, s.of("AWS::IAM::ManagedPolicy"))
		} else {
			require.Equal(t, []string{"FunctionNetworkPolicy"}, s.of("AWS::IAM::ManagedPolicy"))
			found := map[string]any{}
			for _, statement := range s.Resources["FunctionNetworkPolicy"].get(t, "PolicyDocument", "Statement").([]any) {
				statement := statement.(map[string]any)
				require.Equal(t, "Allow", statement["Effect"])
				for _, action := range list(statement["Action"]) {
					found[action.(string)] = statement["Resource"]
				}
			}
			require.Equal(t, interfaces, found)
		}
		for id, allowed := range roles {
			role := s.Resources[id]
			function := s.Resources[strings.TrimSuffix(id, "Role")+"LambdaFunction"]
			require.Equal(t, map[string]any{"Fn::Sub": "${" + id + ".Arn}"}, function.get(t, "Role"))
			require.Equal(t, "lambda.amazonaws.com", role.get(t, "AssumeRolePolicyDocument", "Statement", 0, "Principal", "Service"))
			found := map[string][]string{}
			for _, statement := range role.get(t, "Policies", 0, "PolicyDocument", "Statement").([]any) {
				statement := statement.(map[string]any)
				require.Equal(t, "Allow", statement["Effect"])
				for _, action := range list(statement["Action"]) {
					for _, target := range list(statement["Resource"]) {
						id := "*"
						if target != id { // X-Ray's actions cannot be limited to resources
							id = logicalID(t, target)
						}
						found[action.(string)] = append(found[action.(string)], id)
					}
				}
			}
			require.Equal(t, allowed, found, id)
			policies := list(role.Properties["ManagedPolicyArns"])
			if stage == "dev" || id == "CdcConsumerRole" {
				require.Empty(t, policies, id)
			} else {
				require.Equal(t, []any{map[string]any{"Ref": "FunctionNetworkPolicy"}}, policies, id)
			}
		}
		for i, service := range []string{"cloudwatch.amazonaws.com", "dms.amazonaws.com", "events.amazonaws.com"} {
			statement := s.Resources["AlarmTopicPolicy"].get(t, "PolicyDocument", "Statement", i).(map[string]any)
			require.Equal(t, map[string]any{"Service": service}, statement["Principal"])
			require.Equal(t, "sns:Publish", statement["Action"])
			require.Equal(t, "AlarmTopic", logicalID(t, statement["Resource"]))
		}
	})
}

// list returns a list as it is, and any other value as a list of one.
func list(value any) []any {
	if value == nil {
		return nil
	}
	if values, ok := value.([]any); ok {
		return values
	}
	return []any{value}
}

// logicalID returns the logical id of a Ref or a GetAtt. It fails the test for anything else, such
// as "*", which is not a single resource.
func logicalID(t testing.TB, value any) string {
	t.Helper()
	reference, ok := value.(map[string]any)
	require.True(t, ok, "resource %v", value)
	if id, ok := reference["Ref"].(string); ok {
		return id
	}
	attribute, ok := reference["Fn::GetAtt"].([]any)
	require.True(t, ok, "resource %v", value)
	require.Equal(t, "Arn", attribute[1])
	return attribute[0].(string)
}

// deletion says for everything that holds data what happens to it when the stack is deleted, and
// when it is replaced.
var deletion = map[string]map[string][2]string{
	"dev": {},
	"prod": {
		"Database":         {"Snapshot", "Snapshot"},
		"OutboxStream":     {"Delete", "Retain"},
		"ConsumerFailures": {"RetainExceptOnCreate", "Retain"},
		"ConsumerDiscards": {"RetainExceptOnCreate", "Retain"},
		"CarStatsQueue":    {"RetainExceptOnCreate", "Retain"},
		"CarStatsFailures": {"RetainExceptOnCreate", "Retain"},
	},
}

var stateful = []string{
	"AWS::RDS::DBInstance", "AWS::RDS::DBCluster", "AWS::Kinesis::Stream", "AWS::SQS::Queue", "AWS::SecretsManager::Secret", "AWS::Events::Archive",
	"AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::EFS::FileSystem", "AWS::KMS::Key",
}

func TestDeletionIsDecided(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		seen := 0
		for id, r := range s.Resources {
			if !slices.Contains(stateful, r.Type) {
				continue
			}
			seen++
			want, special := deletion[stage][id]
			if !special {
				want = [2]string{"Delete", "Delete"}
			}
			require.Equal(t, want, [2]string{r.DeletionPolicy, r.UpdateReplacePolicy}, id)
		}
		require.Equal(t, 21, seen)
		require.Equal(t, stage == "dev", s.Resources["Database"].get(t, "DeleteAutomatedBackups"))
	})
}

func TestTLSAndEncryptionInBothStages(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		require.EqualValues(t, 1, parameter(t, s, "rds.force_ssl"))
		require.Equal(t, true, s.Resources["Database"].get(t, "StorageEncrypted"))
		require.Equal(t, "rds-ca-rsa2048-g1", s.Resources["Database"].get(t, "CACertificateIdentifier"))
		for _, id := range []string{"CreateCarLambdaFunction", "CarStatsLambdaFunction", "RetentionLambdaFunction", "CanaryLambdaFunction", "MigrateLambdaFunction"} {
			require.Equal(t, "true", s.Resources[id].get(t, "Environment", "Variables", "DB_SSL"), id)
		}
		warning := s.custom["deployWarning"].(string)
		require.Equal(t, stage == "dev", strings.Contains(warning, "takes connections from everywhere"), warning)
		for _, name := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
			require.Equal(t, true, s.Resources["ServerlessDeploymentBucket"].get(t, "PublicAccessBlockConfiguration", name))
		}
	})
}

func TestProdIsClosed(t *testing.T) {
	t.Parallel()
	s := packaged(t, "prod")
	for id, r := range s.Resources {
		switch r.Type {
		case "AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::Lambda::Url", "AWS::EC2::EIP":
			t.Errorf("%s is a %s", id, r.Type)
		case "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress":
			require.NotContains(t, fmt.Sprint(r.Properties), "0.0.0.0/0", id)
			require.NotContains(t, fmt.Sprint(r.Properties), "::/0", id)
		case "AWS::ApiGateway::Method":
			if r.get(t, "HttpMethod") == "OPTIONS" { // a preflight carries no credentials
				require.Equal(t, "MOCK", r.get(t, "Integration", "Type"), id)
				continue
			}
			require.Equal(t, "AWS_IAM", r.get(t, "AuthorizationType"), id)
		case "AWS::Lambda::Permission":
			principal := "apigateway.amazonaws.com"
			if slices.Contains([]string{"RetentionLambdaFunction", "CanaryLambdaFunction", "CarStatsLambdaFunction"}, logicalID(t, r.get(t, "FunctionName"))) { // on a schedule
				principal = "events.amazonaws.com"
			}
			require.Equal(t, principal, r.get(t, "Principal"), id)
		}
	}
	database := s.Resources["Database"]
	require.Equal(t, false, database.get(t, "PubliclyAccessible"))
	require.Equal(t, true, database.get(t, "MultiAZ"))
	// A failed first deployment has to be able to delete the database. scripts/deploy.sh protects it afterwards (TestDeploy).
	require.NotContains(t, database.Properties, "DeletionProtection")
	require.Equal(t, "true", s.Outputs["DatabaseProtected"].(map[string]any)["Value"])
	require.GreaterOrEqual(t, database.number(t, "BackupRetentionPeriod"), 14.0)

	for id, inside := range map[string]bool{
		"CreateCarLambdaFunction": true, "CarStatsLambdaFunction": true, "RetentionLambdaFunction": true, "CanaryLambdaFunction": true, "MigrateLambdaFunction": true,
		"CdcConsumerLambdaFunction": false,
	} {
		require.Equal(t, inside, s.Resources[id].Properties["VpcConfig"] != nil, id)
	}
	subnets := list(s.Resources["CreateCarLambdaFunction"].get(t, "VpcConfig", "SubnetIds"))
	for _, id := range []string{"SecretsManagerEndpoint", "KinesisEndpoint"} {
		endpoint := s.Resources[id]
		require.Equal(t, subnets, endpoint.get(t, "SubnetIds"), id)
		require.Equal(t, true, endpoint.get(t, "PrivateDnsEnabled"), id)
		require.Equal(t, []any{map[string]any{"Fn::GetAtt": []any{"EndpointSecurityGroup", "GroupId"}}}, endpoint.get(t, "SecurityGroupIds"), id)
	}
	admitted := s.Resources["EndpointSecurityGroup"].get(t, "SecurityGroupIngress", 0, "CidrIp")
	require.Equal(t, map[string]any{"Fn::GetAtt": []any{"Vpc", "CidrBlock"}}, admitted, "a relay comes from another stack")
	require.Equal(t, "Gateway", s.Resources["S3Endpoint"].get(t, "VpcEndpointType"))
}

// An attacker who has taken over a function can also use credentials of an account of their own.
// Only the endpoint's policy stops those, and an endpoint without a policy lets everything through.
func TestEndpointsLetThroughWhatIsNeeded(t *testing.T) {
	t.Parallel()
	s := packaged(t, "prod")
	require.Equal(t, []string{"KinesisEndpoint", "S3Endpoint", "SecretsManagerEndpoint"}, s.of("AWS::EC2::VPCEndpoint"))
	statements := s.Resources["KinesisEndpoint"].get(t, "PolicyDocument", "Statement").([]any)
	require.Len(t, statements, 1)
	require.Equal(t, "OutboxStream", logicalID(t, statements[0].(map[string]any)["Resource"]))

	statements = s.Resources["SecretsManagerEndpoint"].get(t, "PolicyDocument", "Statement").([]any)
	require.Len(t, statements, 1)
	var secrets []string
	for _, secret := range list(statements[0].(map[string]any)["Resource"]) {
		secrets = append(secrets, logicalID(t, secret))
	}
	require.ElementsMatch(t, s.of("AWS::SecretsManager::Secret"), secrets)
	used := []any{"secretsmanager:DescribeSecret"} // DMS's
	for _, actions := range roles {
		for action := range actions {
			if strings.HasPrefix(action, "secretsmanager:") && !slices.Contains(used, any(action)) {
				used = append(used, action)
			}
		}
	}
	require.ElementsMatch(t, used, statements[0].(map[string]any)["Action"])

	region := map[string]any{"Fn::Join": []any{"", map[string]any{"Fn::Split": []any{"-", map[string]any{"Ref": "AWS::Region"}}}}}
	require.Equal(t, []any{
		map[string]any{"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": map[string]any{"Fn::Sub": []any{
			"arn:${AWS::Partition}:s3:::cloudformation-custom-resource-response-${Region}/*", map[string]any{"Region": region}}}},
		map[string]any{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": map[string]any{
			"Fn::Sub": "arn:${AWS::Partition}:s3:::prod-${AWS::Region}-starport-layer-bucket/*"}},
	}, s.Resources["S3Endpoint"].get(t, "PolicyDocument", "Statement"))
}

// The parameter chooses another authorizer. It cannot choose none.
func TestProdTakesAnotherAuthorizer(t *testing.T) {
	t.Parallel()
	require.Equal(t, "COGNITO_USER_POOLS", withParameters(t).Resources["ApiGatewayMethodCarsAny"].get(t, "AuthorizationType"))
}

// Every environment of createCar and carStats may hold two connections (internal/rdsdb). In dev
// only the throttling bounds the number of createCar's environments.
func TestConnectionsAreNotExhausted(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		throttling := s.Resources["ApiStage"].get(t, "MethodSettings", 0).(map[string]any)
		require.Equal(t, "*", throttling["HttpMethod"])
		require.Equal(t, "/*", throttling["ResourcePath"])
		require.Positive(t, throttling["ThrottlingRateLimit"])
		environments := throttling["ThrottlingBurstLimit"].(float64)
		if stage == "prod" {
			environments = s.Resources["CreateCarLambdaFunction"].number(t, "ReservedConcurrentExecutions")
		}
		environments += s.Resources[statsMappingID].number(t, "ScalingConfig", "MaximumConcurrency")
		require.Less(t, 2*environments, s.Resources["DatabaseConnectionsAlarm"].number(t, "Threshold"))
	})
}
