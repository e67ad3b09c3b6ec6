package infra_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README, the scripts and dms-setup.yaml read these.
func TestOutputs(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		for _, name := range []string{
			"ApiEndpoint", "DatabaseEndpoint", "DatabaseSecretArn", "KinesisStreamName", "KinesisStreamArn", "EventBusName", "EventBusArn",
			"EventBusLogGroupName", "VpcId", "DatabaseSecurityGroupId",
			"ApiDatabaseSecretArn", "DmsDatabaseSecretArn", "RetentionDatabaseSecretArn", "FailureQueueUrl", "DiscardQueueUrl", "ConsumerFunctionName", "MigrateFunctionName", "MigrationVersion", "AlarmTopicArn",
			"DatabaseInstanceIdentifier", "CarStatsQueueArn", "CarStatsFailuresArn",
		} {
			require.Contains(t, s.Outputs, name)
		}
		require.NotContains(t, s.Rest, "Conditions", "stages are parameters")
		for _, id := range []string{"OutboxStream", "OutboxEventBus", "Database", "DatabaseSecret"} {
			require.Contains(t, s.Resources, id)
		}
	})
}

func TestFunctions(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		keys := map[any]bool{}
		for name, id := range map[string]string{
			"createCar": "CreateCarLambdaFunction", "cdcConsumer": "CdcConsumerLambdaFunction", "retention": "RetentionLambdaFunction",
			"carStats": "CarStatsLambdaFunction", "canary": "CanaryLambdaFunction", "migrate": "MigrateLambdaFunction",
		} {
			function := s.Resources[id]
			require.Equal(t, "rds-outbox-demo-"+stage+"-"+name, function.get(t, "FunctionName"))
			require.Equal(t, "provided.al2023", function.get(t, "Runtime"), id)
			require.Equal(t, []any{"arm64"}, function.get(t, "Architectures"), id)
			keys[function.get(t, "Code", "S3Key")] = true
		}
		require.Len(t, keys, 6, "two functions share a zip")
		require.Less(t, s.Resources["CreateCarLambdaFunction"].number(t, "Timeout"), 29.0, "API Gateway gives up first")
	})
}

// API Gateway has exactly the paths that openapi.json describes, except for /openapi.json. All
// their methods go to one function, so that HEAD and a method that the path does not have are
// answered as on a laptop.
func TestRoutes(t *testing.T) {
	data, err := os.ReadFile("../handlers/carapi/openapi.json")
	require.NoError(t, err)
	var described struct{ Paths map[string]map[string]any }
	require.NoError(t, json.Unmarshal(data, &described))
	require.Contains(t, described.Paths["/cars"], "post")
	delete(described.Paths, "/openapi.json")
	var wantRoutes, wantPreflights []string
	allowed := map[string][]string{} // by preflight
	for path, members := range described.Paths {
		preflight := "OPTIONS " + path
		wantPreflights, allowed[preflight] = append(wantPreflights, preflight), []string{"OPTIONS", "HEAD"}
		wantRoutes = append(wantRoutes, "ANY "+path)
		for member := range members {
			if member != "parameters" {
				allowed[preflight] = append(allowed[preflight], strings.ToUpper(member))
			}
		}
	}
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		wantPreflights := wantPreflights
		if stage == "prod" { // without corsOrigin a preflight is an ordinary request, and it has no signature
			wantPreflights = nil
		}
		paths := map[string]string{}
		for _, id := range s.of("AWS::ApiGateway::Resource") {
			part := s.Resources[id].get(t, "PathPart").(string)
			if parent, ok := s.Resources[id].get(t, "ParentId").(map[string]any)["Ref"].(string); ok {
				part = s.Resources[parent].get(t, "PathPart").(string) + "/" + part
			}
			paths[id] = "/" + part
		}
		var routes, preflights []string
		for _, id := range s.of("AWS::ApiGateway::Method") {
			method := s.Resources[id]
			route := method.get(t, "HttpMethod").(string) + " " + paths[method.get(t, "ResourceId", "Ref").(string)]
			if strings.HasPrefix(route, "OPTIONS") {
				preflights = append(preflights, route)
				headers := method.get(t, "Integration", "IntegrationResponses", 0, "ResponseParameters").(map[string]any)
				require.Equal(t, "'*'", headers["method.response.header.Access-Control-Allow-Origin"])
				for _, header := range []string{"Content-Type", "Idempotency-Key", "If-Match"} {
					require.Contains(t, headers["method.response.header.Access-Control-Allow-Headers"], header)
				}
				methods := headers["method.response.header.Access-Control-Allow-Methods"].(string)
				require.Subset(t, strings.Split(strings.Trim(methods, "'"), ","), allowed[route])
				continue
			}
			routes = append(routes, route)
			require.Equal(t, "AWS_PROXY", method.get(t, "Integration", "Type"))
		}
		require.ElementsMatch(t, wantRoutes, routes)
		require.ElementsMatch(t, wantPreflights, preflights)
	})
}

// corsOrigin is in every answer, whether the function or API Gateway makes it.
func TestOneOriginByParameter(t *testing.T) {
	for _, test := range []struct {
		s      *stack
		origin string
	}{{packaged(t, "dev"), "*"}, {packaged(t, "prod"), ""}, {withParameters(t), "https://cars.example"}} {
		require.Equal(t, test.origin, test.s.Resources["CreateCarLambdaFunction"].get(t, "Environment", "Variables", "CORS_ORIGIN"))
		api := ""
		for _, kind := range []string{"Method", "GatewayResponse"} {
			for _, id := range test.s.of("AWS::ApiGateway::" + kind) {
				api += jsonOf(t, test.s.Resources[id])
			}
		}
		if test.origin == "" {
			require.NotContains(t, api, "Access-Control-Allow-Origin")
			continue
		}
		require.Equal(t, 5, strings.Count(api, "Access-Control-Allow-Origin\":\"'"+test.origin+"'"), "three preflights and two kinds of errors")
	}
}

func TestGatewayMadeErrorsHaveCORS(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		deployments := s.of("AWS::ApiGateway::Deployment")
		require.Len(t, deployments, 1)
		deployment := s.Resources[deployments[0]]
		var kinds []any
		for _, id := range s.of("AWS::ApiGateway::GatewayResponse") {
			response := s.Resources[id]
			kinds = append(kinds, response.get(t, "ResponseType"))
			if stage == "dev" {
				require.Equal(t, "'*'", response.get(t, "ResponseParameters", "gatewayresponse.header.Access-Control-Allow-Origin"))
			} else {
				require.NotContains(t, jsonOf(t, response.Properties), "Access-Control")
			}
			require.Contains(t, response.get(t, "ResponseTemplates", "application/json"), `"error"`)
			require.Contains(t, deployment.DependsOn, id, "a deployment copies what is there")
		}
		require.ElementsMatch(t, []any{"DEFAULT_4XX", "DEFAULT_5XX"}, kinds)

		stageOf := s.Resources["ApiStage"]
		require.Equal(t, stage, stageOf.get(t, "StageName"))
		require.Equal(t, map[string]any{"Ref": deployments[0]}, stageOf.get(t, "DeploymentId"))
		require.NotContains(t, deployment.Properties, "StageName", "two resources would make one stage")
	})
}
