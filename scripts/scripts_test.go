package scripts

import (
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
	"rds describe-db-snapshots":      out(""),
	"kinesis list-streams":           out("rds-outbox-demo-prod-outbox\tother"),
	"s3api list-buckets":             out("rds-outbox-demo-dev2-bucket"),
	"logs describe-log-groups":       out("/aws/lambda/rds-outbox-demo-prod-createCar"),
	"ec2 describe-vpc-endpoints":     out(""),
})

func TestRemove(t *testing.T) {
	t.Parallel()

	t.Run("StopsDeletesAndLooks", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable, nil, "remove.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"stop-replication-task", "delete-stack", "stack-delete-complete", "remove", "list-stack-resources", "list-stack-resources"},
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
	t.Run("NothingThereIsSaid", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{mainStatus: fails(noStack), dmsStatus: fails(noStack)}), nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "there is no stage dev in us-east-1")
		require.Zero(t, r.called("osls"))
	})
	t.Run("ProtectedStageIsUntouched", func(t *testing.T) {
		t.Parallel()
		r := run(t, removable.with(world{"describe-stacks rds-outbox-demo-dev Stacks[0].[StackId,EnableTerminationProtection]": out("arn:main\tTrue")}),
			nil, "remove.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "stack rds-outbox-demo-dev is protected; nothing was removed")
		for _, words := range []string{"osls", "delete-stack", "stop-replication-task"} {
			require.Zero(t, r.called(words), words)
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
	healthy := deployed.with(world{"osls deploy": out("deployed")})
	r := run(t, healthy, nil, "deploy.sh", "dev", "us-east-1")
	require.Zero(t, r.Exit, r.Err)
	require.Equal(t, 1, r.called("osls deploy --stage dev --region us-east-1"))
	require.Contains(t, r.Err, "deployed: https://api.example.com/dev")
	require.Contains(t, r.Err, "make dms STAGE=dev REGION=us-east-1")

	r = run(t, healthy.with(world{"osls deploy": {{Err: "Error: migration failed\n", Exit: 1}}}), nil, "deploy.sh", "dev", "us-east-1")
	require.Equal(t, 1, r.Exit)
	require.NotContains(t, r.Err, "deployed:")

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
	for _, args := range []string{"up", "status", "slots", "rotate api", "rotate dms", "rotate retention", "rotate carstats"} {
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
