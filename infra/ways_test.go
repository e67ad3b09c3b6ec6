package infra_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// TestWalrelayHasAWayToAllItNeeds compares walrelay-setup.yaml with the compiled main stack. In
// prod packets leave the VPC only through endpoints, so walrelay can reach only the services of the
// endpoints.
func TestWalrelayHasAWayToAllItNeeds(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		relay := resourcesOf(t, "walrelay-setup.yaml")

		// The groups of walrelay and of the database both allow the connection.
		require.Equal(t, []any{map[string]any{"Fn::GetAtt": []any{"DatabaseSecurityGroup", "GroupId"}}}, s.Resources["Database"].get(t, "VPCSecurityGroups"))
		ingress := relay["DatabaseIngressFromTasks"]
		require.Equal(t, map[string]any{"Ref": "DatabaseSecurityGroupId"}, ingress.get(t, "GroupId"))
		require.Equal(t, map[string]any{"Ref": "TaskSecurityGroup"}, ingress.get(t, "SourceSecurityGroupId"))
		require.EqualValues(t, 5432, ingress.get(t, "FromPort"))
		network := relay["Service"].get(t, "NetworkConfiguration", "AwsvpcConfiguration").(map[string]any)
		require.Equal(t, []any{map[string]any{"Ref": "TaskSecurityGroup"}}, network["SecurityGroups"])
		require.Equal(t, map[string]any{"Fn::If": []any{"IsPrivate", "DISABLED", "ENABLED"}}, network["AssignPublicIp"])
		ports := map[string]any{}
		for _, rule := range relay["TaskSecurityGroup"].get(t, "SecurityGroupEgress").([]any) {
			rule := rule.(map[string]any)
			to := rule["CidrIp"]
			if to == nil {
				to = rule["DestinationSecurityGroupId"]
			}
			require.Equal(t, rule["FromPort"], rule["ToPort"])
			ports[fmt.Sprint(rule["FromPort"])] = to
		}
		require.Equal(t, map[string]any{"5432": map[string]any{"Ref": "DatabaseSecurityGroupId"}, "443": "0.0.0.0/0"}, ports)

		gateways := slices.Concat(s.of("AWS::EC2::InternetGateway"), s.of("AWS::EC2::NatGateway"), s.of("AWS::EC2::Route"))
		if stage == "dev" {
			require.Len(t, gateways, 2, "a gateway and the route to it: everything is reachable by its public address")
			require.Empty(t, s.of("AWS::EC2::VPCEndpoint"))
			return
		}
		require.Empty(t, gateways)
		ways := []string{}
		for id, r := range s.Resources {
			if r.Type != "AWS::EC2::VPCEndpoint" {
				continue
			}
			ways = append(ways, service(t, r))
			if r.get(t, "VpcEndpointType") == "Gateway" {
				require.Equal(t, []any{map[string]any{"Ref": "RouteTable"}}, r.get(t, "RouteTableIds"))
				continue
			}
			require.Equal(t, true, r.get(t, "PrivateDnsEnabled"), id)
			require.Equal(t, []any{map[string]any{"Fn::GetAtt": []any{"EndpointSecurityGroup", "GroupId"}}}, r.get(t, "SecurityGroupIds"), id)
		}
		admitted := s.Resources["EndpointSecurityGroup"].get(t, "SecurityGroupIngress", 0, "CidrIp")
		require.Equal(t, map[string]any{"Fn::GetAtt": []any{"Vpc", "CidrBlock"}}, admitted)
		for id, r := range relay {
			if r.Type != "AWS::EC2::VPCEndpoint" {
				continue
			}
			ways = append(ways, service(t, r))
			require.Equal(t, "Interface", r.get(t, "VpcEndpointType"), id)
			require.Equal(t, true, r.get(t, "PrivateDnsEnabled"), id)
			subnets := any(map[string]any{"Ref": "SubnetIds"})
			if id == "SqsEndpoint" { // for outboxctl alone, which can wait for a zone
				subnets = []any{map[string]any{"Fn::Select": []any{0, subnets}}}
			}
			require.Equal(t, subnets, r.get(t, "SubnetIds"), id)
			require.Equal(t, []any{map[string]any{"Ref": "EndpointSecurityGroup"}}, r.get(t, "SecurityGroupIds"), id)
		}
		require.Equal(t, map[string]any{"Ref": "TaskSecurityGroup"}, relay["EndpointSecurityGroup"].get(t, "SecurityGroupIngress", 0, "SourceSecurityGroupId"))
		// A VPC refuses a second endpoint with private DNS for the same service.
		require.ElementsMatch(t, []string{"secretsmanager", "kinesis-streams", "s3", "ecr.api", "ecr.dkr", "logs", "sqs"}, ways)
	})
}

// service returns the name of the endpoint's service without its region.
func service(t *testing.T, r resource) string {
	t.Helper()
	name, ok := strings.CutPrefix(r.get(t, "ServiceName", "Fn::Sub").(string), "com.amazonaws.${AWS::Region}.")
	require.True(t, ok, name)
	return name
}

// resourcesOf reads the resources of a template that osls does not make.
func resourcesOf(t *testing.T, file string) map[string]resource {
	t.Helper()
	all := map[string]resource{}
	for id, value := range labtest.Template(t, file)["Resources"].(map[string]any) {
		value := value.(map[string]any)
		properties, _ := value["Properties"].(map[string]any)
		all[id] = resource{Type: value["Type"].(string), Properties: properties}
	}
	return all
}

// The relays' scripts pass outputs of the main stack to their templates.
func TestRelayScriptsReadOutputsThatExist(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		for _, script := range []string{"deploy-dms.sh", "deploy-walrelay.sh", "outboxctl-env.sh", "run-outboxctl.sh"} {
			text, err := os.ReadFile(filepath.Join("..", "scripts", script))
			require.NoError(t, err)
			joined := strings.ReplaceAll(string(text), "\\\n", " ")
			match := regexp.MustCompile(`read_outputs "\$main_stack"([ A-Za-z]+)`).FindStringSubmatch(joined)
			require.NotNil(t, match, script)
			for _, name := range strings.Fields(match[1]) {
				require.Contains(t, slices.Collect(maps.Keys(s.Outputs)), name, script)
			}
		}
	})
}
