package scripts

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	endpoint = "db.abc.us-east-1.rds.amazonaws.com"
	secret   = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:DatabaseSecret-abc"
)

func TestSetupDBSchema(t *testing.T) {
	t.Parallel()
	const password = `p'a"s\s$ w/o:rd@`
	healthy := world{
		"secretsmanager get-secret-value": out(`{"username":"dbadmin","password":"p'a\"s\\s$ w/o:rd@"}`),
		"migrate up":                      out("migrate: up to date at version 3"),
	}

	t.Run("MigratesWithAPasswordThatNobodySees", func(t *testing.T) {
		t.Parallel()
		r := run(t, healthy, nil, "setup-db-schema.sh", endpoint, secret)
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "migrate: up to date at version 3\n", r.Out)
		require.Equal(t, []string{
			"DATABASE_URL=postgres://" + endpoint + ":5432/outboxdb?sslmode=verify-full&sslrootcert=internal/rdsdb/rds-ca-bundle.pem",
			"PGUSER=dbadmin", "PGPASSWORD=" + password,
		}, r.Environment)
		require.NotContains(t, strings.Join(r.Calls, "\n")+r.Out+r.Err, "w/o:rd@", "in no argument and no output")
		require.Equal(t, 1, r.called("get-secret-value "+secret+" --region eu-west-1"), "the secret's region")
	})
	t.Run("TakesAPort", func(t *testing.T) {
		t.Parallel()
		r := run(t, healthy, nil, "setup-db-schema.sh", endpoint+":6432", secret)
		require.Zero(t, r.Exit, r.Err)
		require.Contains(t, r.Environment[0], endpoint+":6432/outboxdb")
	})
	t.Run("MigrationFails", func(t *testing.T) {
		t.Parallel()
		r := run(t, healthy.with(world{"migrate up": {{Err: "migrate: connecting: timeout\n", Exit: 1}}}), nil, "setup-db-schema.sh", endpoint, secret)
		require.Equal(t, 1, r.Exit)
		require.Equal(t, "migrate: connecting: timeout\n", r.Err)
	})
	for name, test := range map[string]struct {
		world world
		args  []string
		want  string
	}{
		"NoArguments": {healthy, nil, "usage: scripts/setup-db-schema.sh <DatabaseEndpoint> <DatabaseSecretArn>"},
		"OddEndpoint": {healthy, []string{"postgres://x", secret}, "'postgres://x' is not a host or host:port"},
		"OddSecret":   {healthy, []string{endpoint, "DatabaseSecret"}, "'DatabaseSecret' is not the ARN of a secret"},
		"NoSuchSecret": {healthy.with(world{"secretsmanager get-secret-value": fails("An error occurred (ResourceNotFoundException) when calling the GetSecretValue operation: Secrets Manager can't find the specified secret.")}),
			[]string{endpoint, secret}, "can't find the specified secret"},
		"NoCredentials": {healthy.with(world{"secretsmanager get-secret-value": fails("Unable to locate credentials. You can configure credentials by running \"aws login\".")}),
			[]string{endpoint, secret}, "no AWS credentials"},
		"NotJSON":    {healthy.with(world{"secretsmanager get-secret-value": out("hunter2")}), []string{endpoint, secret}, "the secret is not JSON with username and password"},
		"NoPassword": {healthy.with(world{"secretsmanager get-secret-value": out(`{"username":"dbadmin"}`)}), []string{endpoint, secret}, "the secret has no username or no password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, test.world, nil, "setup-db-schema.sh", test.args...)
			require.Equal(t, 1, r.Exit)
			require.Contains(t, r.Err, "setup-db-schema: ")
			require.Contains(t, r.Err, test.want)
			require.NotContains(t, r.Err, "hunter2")
			require.Zero(t, r.called("migrate"))
		})
	}
}

// databaseProtection names the stage's database if it is protected.
const databaseProtection = "rds describe-db-instances DBInstances[?DeletionProtection&&DBInstanceIdentifier=='rds-outbox-demo-dev-database-1x'].DBInstanceIdentifier"

// removable is a stage with both stacks, before it is removed.
var removable = deployed.with(world{
	"describe-stacks rds-outbox-demo-dev Stacks[0].[StackId,EnableTerminationProtection]": out("arn:main\tFalse"),
	"describe-stacks rds-outbox-demo-dev-dms Stacks[0].StackId":                           out("arn:dms"),
	taskState:                        {{Out: "running\t2026-01-01\tNone\tNone\n"}, {Out: "stopped\t2026-01-01\tNone\tNone\n"}},
	"dms stop-replication-task":      out(""),
	"cloudformation delete-stack":    out(""),
	"cloudformation wait":            out(""),
	"osls remove":                    out("removed"),
	"list-stack-resources":           out("None"),
	"describe-replication-instances": out("None"),
	"rds describe-db-instances":      out("rds-outbox-demo-devel-database"),
	databaseProtection:               out(""),
	"list-stack-resources StackResourceSummaries[?LogicalResourceId=='Database'].PhysicalResourceId": out("rds-outbox-demo-dev-database-1x"),
	"rds describe-db-snapshots":  out(""),
	"kinesis list-streams":       out("rds-outbox-demo-prod-outbox\tother"),
	"s3api list-buckets":         out("rds-outbox-demo-dev2-bucket"),
	"logs describe-log-groups":   out("/aws/lambda/rds-outbox-demo-prod-createCar"),
	"ec2 describe-vpc-endpoints": out(""),
	"ecs list-clusters":          out("arn:aws:ecs:us-east-1:1:cluster/rds-outbox-demo-prod-walrelay"),
	"ecr describe-repositories":  out("rds-outbox-demo-prod/walrelay"),
})

func TestRemove(t *testing.T) {
	t.Parallel()

	t.Run("StopsDeletesAndLooks", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable, nil, "remove.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"list-stack-resources", "stop-replication-task", "delete-stack", "stack-delete-complete", "remove", "list-stack-resources", "list-stack-resources"},
			order(r, "stop-replication-task", "delete-stack", "stack-delete-complete", "remove", "list-stack-resources"))
		require.Equal(t, 1, r.called("osls remove --stage dev --region us-east-1"))
		require.Contains(t, r.Err, "nothing that costs money is left")
	})
	t.Run("WithoutDMSStack", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{dmsStatus: fails(noStack)}), nil, "remove.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Zero(t, r.called("delete-stack"))
		require.Equal(t, 1, r.called("osls remove"))
	})
	t.Run("FailedDMSDeploymentHasNoTask", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{dmsStatus: out("ROLLBACK_COMPLETE"), dmsOutput: out("None")}), nil, "remove.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Zero(t, r.called("stop-replication-task"))
		require.Equal(t, 1, r.called("delete-stack"))
	})
	t.Run("WalrelayGoesBeforeTheMainStack", func(t *testing.T) {
		t.Parallel()
		both := removable.with(world{walrelayStatus: out("UPDATE_COMPLETE"), "describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].StackId": out("arn:walrelay")})
		r := run(t, both, nil, "remove.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"rds-outbox-demo-dev-walrelay", "arn:walrelay", "rds-outbox-demo-dev-dms", "arn:dms", "remove"},
			order(result{Calls: slices.DeleteFunc(r.Calls, func(call string) bool { return !strings.Contains(call, "delete") && !strings.Contains(call, "remove") })},
				"rds-outbox-demo-dev-walrelay", "arn:walrelay", "rds-outbox-demo-dev-dms", "arn:dms", "remove"))

		r = run(t, both.with(world{
			"cloudformation wait":                  {{Err: "Waiter failed", Exit: 255}},
			"cloudformation describe-stack-events": out("Service\tDELETE_FAILED\tin use"),
		}), nil, "remove.sh", "dev", "us-east-1")
		require.Contains(t, r.Err, "stack rds-outbox-demo-dev-walrelay could not be deleted: Service: in use. The main stack is untouched")
		require.Zero(t, r.called("osls"))
	})
	t.Run("NothingThereIsSaid", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{mainStatus: fails(noStack), dmsStatus: fails(noStack)}), nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "there is no stage dev in us-east-1")
		require.Zero(t, r.called("osls"))
	})
	t.Run("ProtectedStageIsUntouched", func(t *testing.T) {
		t.Parallel()
		for want, protected := range map[string]world{
			"stack rds-outbox-demo-dev is protected; nothing was removed": {
				"describe-stacks rds-outbox-demo-dev Stacks[0].[StackId,EnableTerminationProtection]": out("arn:main\tTrue")},
			"database rds-outbox-demo-dev-database-1x is protected; nothing was removed": {databaseProtection: out("rds-outbox-demo-dev-database-1x")},
		} {
			r := run(t, removable.with(protected), nil, "remove.sh", "dev", "us-east-1")
			require.Equal(t, 1, r.Exit)
			require.Contains(t, r.Err, want)
			for _, words := range []string{"osls", "delete-stack", "stop-replication-task"} {
				require.Zero(t, r.called(words), words)
			}
		}
	})
	t.Run("DMSStackThatStaysKeepsTheMainStack", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{
			"cloudformation wait":                  {{Err: "Waiter failed", Exit: 255}},
			"cloudformation describe-stack-events": out("DmsReplicationInstance\tDELETE_FAILED\tin use"),
		}), nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "stack rds-outbox-demo-dev-dms could not be deleted: DmsReplicationInstance: in use. The main stack is untouched")
		require.Zero(t, r.called("osls"))
	})
	t.Run("FailedRemovalSaysWhatIsGone", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{"osls remove": {{Err: "bucket not empty\n", Exit: 1}}}), nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "bucket not empty\nremove: stack rds-outbox-demo-dev was not removed, see above; stack rds-outbox-demo-dev-dms is")
	})
	t.Run("WhatIsLeftIsNamed", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{
			"list-stack-resources arn:main":  out("AWS::Kinesis::Stream\trds-outbox-demo-dev-outbox"),
			"rds describe-db-snapshots":      out("rds-outbox-demo-dev-snapshot-database-x\trds-outbox-demo-prod-snapshot"),
			"logs describe-log-groups":       out("/aws/rds/instance/rds-outbox-demo-dev-database-x/postgresql\t/aws/events/rds-outbox-demo-dev"),
			"describe-replication-instances": out("rds-outbox-demo-dev-dms-replication-instance"),
		}), nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		_, list, found := strings.Cut(r.Err, "this is left and may cost money")
		require.True(t, found, r.Err)
		require.Equal(t, []string{
			"  AWS::Kinesis::Stream: rds-outbox-demo-dev-outbox",
			"  DMS instance: rds-outbox-demo-dev-dms-replication-instance",
			"  snapshot: rds-outbox-demo-dev-snapshot-database-x",
			"  log group: /aws/rds/instance/rds-outbox-demo-dev-database-x/postgresql",
			"  log group: /aws/events/rds-outbox-demo-dev",
		}, strings.Split(strings.TrimSpace(list), "\n")[1:])
	})
	t.Run("LookThatFailsIsNotNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{"rds describe-db-instances": fails("An error occurred (AccessDenied) when calling DescribeDBInstances")}),
			nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "AccessDenied")
		require.NotContains(t, r.Err, "nothing that costs money")
	})
}

func TestDeploy(t *testing.T) {
	t.Parallel()
	const reserved = "osls print functions.createCar.reservedConcurrency"
	const orderable = "dms describe-orderable-replication-instances"
	healthy := deployed.with(world{
		"osls deploy":                     out("deployed"),
		reserved:                          out("null"),
		"freetier get-account-plan-state": out("PAID"),
		orderable:                         out("3.5.4\n3.6.1"),
		"describe-events":                 fails(noStack),
		mainOutput:                        out("ApiEndpoint\thttps://api.example.com/dev\nDatabaseInstanceIdentifier\tthe-database\nDatabaseProtected\tfalse"),
	})
	r := run(t, healthy, nil, "deploy.sh", "dev", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Equal(t, 1, r.called("osls deploy --stage dev --region us-east-1"))
	require.Contains(t, r.Err, "deployed: https://api.example.com/dev")
	require.Contains(t, r.Err, "make dms STAGE=dev REGION=us-east-1")

	require.Zero(t, r.called("rds modify-db-instance"))

	r = run(t, healthy.with(world{
		"osls deploy":     {{Err: "Error: validation failed\n", Exit: 1}},
		"describe-events": {{Out: "e1\tOld\tan older story\n"}, {Out: "e2\tCreateCarLogGroup\tResource of type 'AWS::Logs::LogGroup' with identifier '/aws/lambda/x' already exists.\ne1\tOld\tan older story\n"}},
	}), nil, "deploy.sh", "dev", "us-east-1")
	require.Equal(t, 1, r.Exit)
	require.NotContains(t, r.Err, "deployed:")
	require.Contains(t, r.Err, "CloudFormation refused beforehand:\nCreateCarLogGroup\tResource of type 'AWS::Logs::LogGroup' with identifier")

	require.NotContains(t, r.Err, "older story")
	// A refusal of days ago is not the reason why osls failed today.
	r = run(t, healthy.with(world{
		"osls deploy": {{Err: "Error: building the functions failed\n", Exit: 1}}, "describe-events": out("e1\tOld\tan older story"),
	}), nil, "deploy.sh", "dev", "us-east-1")
	require.True(t, strings.HasSuffix(r.errorLine(t), "stack rds-outbox-demo-dev was not deployed, see above"), r.Err)

	// The database is protected after the first success, and again each time.
	prod := world{}
	for words, answers := range healthy {
		prod[strings.ReplaceAll(words, "rds-outbox-demo-dev", "rds-outbox-demo-prod")] = answers
	}
	const prodOutput = "describe-stacks rds-outbox-demo-prod Stacks[0].Outputs[].[OutputKey,OutputValue]"
	prod = prod.with(world{
		reserved: out("50"), "lambda get-account-settings": out("1000"), "rds modify-db-instance": out(""),
		prodOutput: out("ApiEndpoint\thttps://api.example.com/prod\nDatabaseInstanceIdentifier\tthe-database\nDatabaseProtected\ttrue"),
	})
	r = run(t, prod, nil, "deploy.sh", "prod", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Equal(t, []string{"deploy", "modify-db-instance"}, order(r, "deploy", "modify-db-instance"))
	require.Equal(t, 1, r.called("modify-db-instance the-database --deletion-protection"))

	// The script checks first what would fail after half an hour.
	const prodStatus = "describe-stacks rds-outbox-demo-prod Stacks[0].StackStatus"
	for name, test := range map[string]struct {
		world  world
		region string
		want   string
	}{
		"NewAccount":   {prod.with(world{"lambda get-account-settings": out("10")}), "us-east-1", "may run 10 Lambda environments in us-east-1, and apiConcurrency reserves 50 of the 150"},
		"FreePlan":     {prod.with(world{"freetier get-account-plan-state": out("FREE")}), "us-east-1", "this account is on the Free plan"},
		"NoRoots":      {prod, "ap-southeast-5", "rds-ca-bundle.pem has no certificate for databases there"},
		"Leftover":     {prod.with(world{prodStatus: fails(noStack), "rds describe-db-instances": out("rds-outbox-demo-prod-database-abc")}), "us-east-1", "its database is there and bills: rds-outbox-demo-prod-database-abc"},
		"FailedBefore": {prod.with(world{prodStatus: out("ROLLBACK_FAILED"), "describe-stack-events": out("Database\tDELETE_FAILED\tprotected")}), "us-east-1", "is ROLLBACK_FAILED (Database: protected): remove what is left of it first, make remove STAGE=prod"},
	} {
		r = run(t, test.world, nil, "deploy.sh", "prod", test.region)
		require.Equal(t, 1, r.Exit, name)
		require.Contains(t, r.Err, test.want, name)
		require.Zero(t, r.called("osls deploy"), name)
	}
	// If these credentials may not ask a question, the script names it and goes on.
	r = run(t, prod.with(world{"lambda get-account-settings": fails("An error occurred (AccessDeniedException) when calling the GetAccountSettings operation")}), nil, "deploy.sh", "prod", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Contains(t, r.Err, "not checked beforehand: aws lambda get-account-settings: An error occurred (AccessDeniedException)")
	require.NotContains(t, r.Err, "cannot be ordered")
	// walrelay needs no DMS, so its absence ends no deployment.
	r = run(t, prod.with(world{orderable: out("3.6.2\n3.6.3")}), nil, "deploy.sh", "prod", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Contains(t, r.Err, "DMS 3.6.1 on dms.t3.small cannot be ordered in us-east-1 any more. Versions of dms.t3.small there: 3.6.2 3.6.3.")
	require.Contains(t, r.Err, "scripts/deploy-dms.sh prod us-east-1 EngineVersion=<version>")
	// In a region without the type, the template has to do without it.
	r = run(t, prod, nil, "deploy.sh", "prod", "ap-south-2")
	require.Zero(t, r.Exit, r.Err)
	require.Equal(t, 1, r.called("osls deploy --param contractRegistry=false"))
	require.Contains(t, r.Err, "region ap-south-2 has no AWS DMS: the relay is walrelay there, make walrelay STAGE=prod REGION=ap-south-2")

	r = run(t, healthy.with(world{"sts get-caller-identity": fails("Unable to locate credentials.")}), nil, "deploy.sh", "dev", "us-east-1")
	require.Equal(t, "deploy: no AWS credentials: set AWS_PROFILE, or run aws configure", r.errorLine(t))
	require.Zero(t, r.called("osls"))

	r = run(t, healthy, []string{"AWS_ENDPOINT_URL=http://127.0.0.1:1"}, "deploy.sh", "dev", "us-east-1")
	require.Contains(t, r.Err, "AWS_ENDPOINT_URL is set: this deploys to http://127.0.0.1:1, not to AWS", "a forgotten export sends a deployment elsewhere")
}

func TestURL(t *testing.T) {
	t.Parallel()
	r := run(t, deployed, nil, "url.sh", "dev", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Equal(t, "https://api.example.com/dev\n", r.Out)

	r = run(t, deployed.with(world{mainStatus: fails(noStack)}), nil, "url.sh", "dev", "us-east-1")
	require.Equal(t, "url: there is no stack rds-outbox-demo-dev in us-east-1: is it another stage or region? To make it: make deploy STAGE=dev REGION=us-east-1", r.errorLine(t))
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r := run(t, deployed.with(world{"logs filter-log-events": {
		{Out: "1\t{\"a\":1}\n"}, {Out: "1\t{\"a\":1}\n2\t{\"b\":2}\n"}, {Out: "None\n"},
		{Err: "\nAn error occurred (ResourceNotFoundException): The specified log group does not exist.\n", Exit: 254},
	}}), nil, "events.sh", "dev", "us-east-1")
	require.Equal(t, 1, r.Exit)
	require.Equal(t, "{\"a\":1}\n{\"b\":2}\n", r.Out, "each once")
	require.Contains(t, r.Err, "The specified log group does not exist.")
	require.Equal(t, 4, r.called("filter-log-events /aws/events/demo"))
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	// The stub writes Err where the function's answer goes.
	healthy := deployed.with(world{
		mainOutput:    out("MigrateFunctionName\tthe-function"),
		invokeMigrate: {{Out: "None\n", Err: `{"version":3}`}},
	})
	for _, args := range []string{"up", "status", "slots", "rotate api", "rotate dms", "rotate retention", "rotate carstats", "rotate canary"} {
		r := run(t, healthy, nil, "migrate.sh", append([]string{"dev", "us-east-1"}, strings.Fields(args)...)...)
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "{\"version\":3}\n", r.Out)
		require.Equal(t, 1, r.called("invoke --function-name the-function"))
		require.Equal(t, args == "rotate dms", strings.Contains(r.Err, "stop it and let it resume"), "a running task keeps its session")
	}
	r := run(t, healthy.with(world{invokeMigrate: {{Out: "Unhandled\n", Err: `{"errorMessage":"locked"}`}}}), nil, "migrate.sh", "dev", "us-east-1", "up")
	require.Equal(t, `migrate: {"errorMessage":"locked"}`, r.errorLine(t))

	for _, args := range []string{"", "down-to 0", "rotate", "rotate master", "up now"} {
		r := run(t, healthy, nil, "migrate.sh", append([]string{"dev", "us-east-1"}, strings.Fields(args)...)...)
		require.Contains(t, r.errorLine(t), "usage: ")
		require.Empty(t, r.Calls)
	}
}
