package infra_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	migrations "rds-outbox-demo/sql/migrations"
)

// New code of a function, and traffic, must not meet an old schema.
func TestEverythingWaitsForTheMigration(t *testing.T) {
	forEachStage(t, func(t *testing.T, stage string, s *stack) {
		require.Equal(t, []string{"DatabaseMigration"}, s.of("Custom::DatabaseMigration"))
		waiting := append([]string{"CreateCarLambdaFunction", "CdcConsumerLambdaFunction", "RetentionLambdaFunction", "CarStatsLambdaFunction", "CanaryLambdaFunction", mappingID, statsMappingID, "ApiStage"}, s.of("AWS::ApiGateway::Deployment")...)
		for _, id := range waiting {
			require.Contains(t, s.uses(id), "DatabaseMigration", id)
		}
		// What the migration needs to reach database and secrets, and to answer. On delete these
		// are removed after it.
		needs := []string{"MigrateLambdaFunction", "MigrateRole", "MigrateLogGroup", "Database", "DatabaseParameters", "DatabaseSecret",
			"ApiDatabaseSecret", "DmsDatabaseSecret", "RetentionDatabaseSecret", "CarStatsDatabaseSecret", "CanaryDatabaseSecret", "SubnetARoutes", "SubnetBRoutes"}
		if stage == "dev" {
			needs = append(needs, "DefaultRoute", "InternetGatewayAttachment", "DatabaseFromEverywhere")
		} else {
			needs = append(needs, "S3Endpoint", "SecretsManagerEndpoint", "DatabaseFromFunctions", "FunctionSecurityGroup")
		}
		for _, id := range needs {
			require.Contains(t, s.uses("DatabaseMigration"), id)
		}
		for id := range s.Resources {
			require.NotContains(t, s.uses(id), id, "waits for itself")
		}
	})
}

func TestMigrationRunsAgainWhenItMust(t *testing.T) {
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		migration := s.Resources["DatabaseMigration"]
		require.Equal(t, hashOfMigrations(t), migration.get(t, "MigrationsHash"))
		require.Equal(t, map[string]any{"Ref": "Database"}, migration.get(t, "Database"))
		require.Equal(t, []any{
			map[string]any{"Ref": "ApiDatabaseSecret"}, map[string]any{"Ref": "DmsDatabaseSecret"}, map[string]any{"Ref": "RetentionDatabaseSecret"},
			map[string]any{"Ref": "CarStatsDatabaseSecret"}, map[string]any{"Ref": "CanaryDatabaseSecret"},
		}, migration.get(t, "Secrets"))
		require.Greater(t, migration.number(t, "ServiceTimeout"), s.Resources["MigrateLambdaFunction"].number(t, "Timeout"))
	})
}

// If the definition of a secret changes, CloudFormation stores a new password before the database
// knows it. If the deployment then fails, its rollback stores yet another one. So another
// passwordVersion changes only the migration, which sets both sides.
func TestPasswordVersionChangesTheMigrationAndNoSecret(t *testing.T) {
	t.Parallel()
	before, after := packaged(t, "prod"), withParameters(t)
	require.Equal(t, "1", before.Resources["DatabaseMigration"].get(t, "PasswordVersion"))
	require.Equal(t, "2", after.Resources["DatabaseMigration"].get(t, "PasswordVersion"))
	for _, id := range []string{"ApiDatabaseSecret", "DmsDatabaseSecret", "RetentionDatabaseSecret", "CarStatsDatabaseSecret", "CanaryDatabaseSecret"} {
		require.Equal(t, before.Resources[id], after.Resources[id], id)
	}
	// Any other definition would make CloudFormation store a new password that the database does
	// not learn.
	require.Equal(t, map[string]any{
		"SecretStringTemplate": `{"username":"dbadmin"}`, "GenerateStringKey": "password", "PasswordLength": 40.0, "ExcludePunctuation": true,
	}, after.Resources["DatabaseSecret"].get(t, "GenerateSecretString"))
}

func hashOfMigrations(t testing.TB) string {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*.sql") // sorted
	require.NoError(t, err)
	hash := sha256.New()
	for _, name := range names {
		data, err := migrations.FS.ReadFile(name)
		require.NoError(t, err)
		_, _ = hash.Write(append(slices.Concat([]byte(name), []byte{0}, []byte(strconv.Itoa(len(data))), []byte{0}), data...))
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// reads lists the environment variables of a program. They are the names given to os.Getenv in
// mains, to getenv where a main hands it down, and the env of migrate's users.
var reads = regexp.MustCompile(`(?:os\.Getenv|getenv)\("([A-Z_]+)"\)|"([A-Z_]+_SECRET_ARN)"`)

func TestFunctionsGetWhatTheyRead(t *testing.T) {
	const database = "internal/rdsdb"
	sources := map[string][]string{
		"CreateCarLambdaFunction":   {"handlers/carapi/lambda", database},
		"CdcConsumerLambdaFunction": {"handlers/cdcconsumer/lambda"},
		"RetentionLambdaFunction":   {"handlers/retention/lambda", database},
		"CarStatsLambdaFunction":    {"handlers/carstats/lambda", database},
		"CanaryLambdaFunction":      {"handlers/canary/lambda", database},
		"MigrateLambdaFunction":     {"migrate/lambda", database},
	}
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		require.Len(t, s.of("AWS::Lambda::Function"), len(sources))
		for id, folders := range sources {
			require.Equal(t, folders[0], s.Resources[id].get(t, "Handler"))
			var read []string
			for _, folder := range folders {
				files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
				require.NoError(t, err)
				for _, file := range files {
					if matched, _ := filepath.Match("*_test.go", filepath.Base(file)); matched {
						continue
					}
					source, err := os.ReadFile(file)
					require.NoError(t, err)
					for _, match := range reads.FindAllStringSubmatch(string(source), -1) {
						if name := match[1] + match[2]; !strings.HasPrefix(name, "AWS_") { // Lambda sets these itself
							read = append(read, name)
						}
					}
				}
			}
			slices.Sort(read)
			var given []string
			for name := range s.Resources[id].get(t, "Environment", "Variables").(map[string]any) {
				given = append(given, name)
			}
			require.ElementsMatch(t, slices.Compact(read), given, id)
		}
	})
}
