package infra_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// CloudFormation refuses a template with a type that the region lacks (scripts/regions.txt).
func TestWithoutARegistry(t *testing.T) {
	t.Parallel()
	require.Empty(t, withParameters(t).of("AWS::EventSchemas::Registry"))
	require.Empty(t, withParameters(t).of("AWS::EventSchemas::Schema"))
}

func TestZones(t *testing.T) {
	t.Parallel()
	subnets := func(s *stack) []any {
		return []any{s.Resources["SubnetA"].get(t, "AvailabilityZone"), s.Resources["SubnetB"].get(t, "AvailabilityZone")}
	}
	require.Equal(t, []any{"us-east-1b", "us-east-1d"}, subnets(withParameters(t)))
	at := func(i float64) any { return map[string]any{"Fn::Select": []any{i, map[string]any{"Fn::GetAZs": ""}}} }
	require.Equal(t, []any{at(0), at(1)}, subnets(packaged(t, "dev")))
}

// The registry shows the same files that the events are checked against.
func TestEveryContractIsRegistered(t *testing.T) {
	files, err := filepath.Glob("../contracts/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		require.Equal(t, []string{"EventContracts"}, s.of("AWS::EventSchemas::Registry"))
		require.Equal(t, "rds-outbox-demo-"+stage, s.Resources["EventContracts"].get(t, "RegistryName"))
		want := map[string]string{} // schema name -> content
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			var contract struct {
				Source     string `json:"x-amazon-events-source"`
				DetailType string `json:"x-amazon-events-detail-type"`
			}
			require.NoError(t, json.Unmarshal(data, &contract))
			want[contract.Source+"@"+contract.DetailType] = string(data)
		}
		require.Len(t, want, len(files))

		registered := map[string]string{}
		for _, id := range s.of("AWS::EventSchemas::Schema") {
			r := s.Resources[id]
			require.Equal(t, map[string]any{"Fn::GetAtt": []any{"EventContracts", "RegistryName"}}, r.get(t, "RegistryName"), id)
			require.Equal(t, "JSONSchemaDraft4", r.get(t, "Type"), id)
			name, content, description := r.get(t, "SchemaName").(string), r.get(t, "Content").(string), r.get(t, "Description").(string)
			registered[name] = content
			// The limits of CreateSchema (botocore 1.43, schemas), which cfn-lint does not know.
			// Names have the limits that Terraform checks (aws_schemas_schema).
			require.LessOrEqual(t, utf8.RuneCountInString(content), 100_000, id)
			require.LessOrEqual(t, utf8.RuneCountInString(description), 256, id)
			require.Regexp(t, `^[A-Za-z0-9._@-]{1,385}$`, name)
		}
		require.Equal(t, want, registered)
	})
}
