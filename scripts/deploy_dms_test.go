package scripts

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// deployed is an account with the main stack, and a DMS stack whose task runs, so that nothing is
// left to do.
var deployed = world{
	"sts get-caller-identity": out("123456789012\tarn:aws:iam::123456789012:user/me\tAIDA"),
	mainStatus:                out("UPDATE_COMPLETE"),
	mainOutput: out("ApiEndpoint\thttps://api.example.com/dev\nDatabaseSecurityGroupId\tsg-db\nDmsDatabaseSecretArn\tarn:secret\n" +
		"KinesisStreamArn\tarn:stream\nAlarmTopicArn\tarn:topic\nVpcId\tvpc-1\nEventBusLogGroupName\t/aws/events/demo\nMigrateFunctionName\tthe-function"),
	"ec2 describe-subnets":            out("us-east-1b\tsubnet-b\nus-east-1a\tsubnet-a2\nus-east-1a\tsubnet-a1"),
	"ec2 describe-route-tables":       out("None\nsubnet-a1\nsubnet-b"),
	"iam get-role":                    out("there"),
	"iam list-attached-role-policies": out("policy"),
	"cloudformation deploy":           out("\nWaiting for changeset to be created..\n\nNo changes to deploy. Stack rds-outbox-demo-dev-dms is up to date"),
	walrelayStatus:                    fails(noStack),
	dmsStatus:                         out("CREATE_COMPLETE"),
	dmsOutput: out("ReplicationTaskArn\tarn:task\nReplicationInstanceArn\tarn:instance\n" +
		"SourceEndpointArn\tarn:source\nTargetEndpointArn\tarn:target"),
	taskState:     out("running\t2026-01-01\tNone\tNone"),
	taskSince:     out("2026-01-01T00:00:00+00:00"),
	invokeMigrate: slotsAre(`{"name":"abc","plugin":"test_decoding","active":false,"walStatus":"reserved","usable":true}`),
	"describe-replication-tasks ReplicationTasks[0].ReplicationTaskStats.[FullLoadProgressPercent,TablesLoaded,TablesErrored]": out("100\t1\t0"),
	"dms test-connection":      out("testing"),
	"dms describe-connections": {{Out: "testing\tNone\n"}, {Out: "successful\tNone\n"}},
}

const (
	changes = "\nWaiting for changeset to be created..\n\nChangeset created successfully. Run the following command to review changes:\n" +
		"aws cloudformation describe-change-set --change-set-name arn:aws:cloudformation:us-east-1:1:changeSet/awscli/1\n"
	execute = "execute-change-set --change-set-name arn:aws:cloudformation:us-east-1:1:changeSet/awscli/1"
)

// absent is the same account before the first run.
var absent = deployed.with(world{
	dmsStatus:               {{Err: noStack, Exit: 254}, {Out: "CREATE_COMPLETE\n"}},
	"cloudformation deploy": out(changes),
	"dms describe-orderable-replication-instances": out("3.5.4\n3.6.1\n3.6.1"),
	execute:               out(""),
	"cloudformation wait": out(""),
	taskState: {{Out: "ready\tNone\tNone\tNone\n"}, {Out: "ready\tNone\tNone\tNone\n"}, {Out: "starting\t2026-01-01\tNone\tNone\n"},
		{Out: "running\t2026-01-01\tNone\tNone\n"}},
	"dms start-replication-task": out("starting"),
})

func TestDeployDMS(t *testing.T) {
	t.Parallel()

	t.Run("FirstRunStartsTheTask", func(t *testing.T) {
		t.Parallel()
		r := run(t, absent, nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "rds-outbox-demo-dev-replication-task: running; full load 100 %, tables loaded 1, tables with errors 0\n", r.Out)
		require.Equal(t, 1, r.called(execute))
		require.Equal(t, 1, r.called("wait stack-create-complete"))
		require.Equal(t, 2, r.called("dms test-connection arn:instance"))
		require.Equal(t, 1, r.called("start-replication-task arn:task start-replication"))
		require.Equal(t, 1, r.called("start-replication-task"))
		require.Zero(t, r.called("iam create-role"))
		deploy := ""
		for _, call := range r.Calls {
			if strings.Contains(call, "cloudformation deploy") {
				deploy = call
			}
		}
		for _, parameter := range []string{"StackName=rds-outbox-demo-dev", "DmsDatabaseSecretArn=arn:secret", "DatabaseSecurityGroupId=sg-db",
			"KinesisStreamArn=arn:stream", "AlarmTopicArn=arn:topic", "VpcId=vpc-1", "SubnetIds=subnet-a1,subnet-b", "Network=public"} {
			require.Contains(t, deploy, " "+parameter+" ")
		}
		for _, call := range r.Calls {
			require.Contains(t, call, "--region us-east-1")
			require.NotContains(t, call, "--endpoint-url")
		}
	})
	t.Run("SecondRunChangesNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed, nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Contains(t, r.Out, "running")
		for _, words := range []string{"start-replication-task", "stop-replication-task", "execute-change-set", "create-role"} {
			require.Zero(t, r.called(words), words)
		}
	})
	t.Run("ChangedStackStopsAndResumes", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed.with(world{
			"cloudformation deploy": out(changes), execute: out(""), "cloudformation wait": out(""),
			taskState: {{Out: "running\t2026-01-01\tNone\tNone\n"}, {Out: "stopped\t2026-01-01\tStop Reason NORMAL\tNone\n"},
				{Out: "stopped\t2026-01-01\tStop Reason NORMAL\tNone\n"}, {Out: "stopped\t2026-01-01\tStop Reason NORMAL\tNone\n"},
				{Out: "running\t2026-01-01\tNone\tNone\n"}},
			"dms stop-replication-task": out(""), "dms start-replication-task": out(""),
		}), nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"stop-replication-task", "execute-change-set", "test-connection", "test-connection", "resume-processing"},
			order(r, "stop-replication-task", "execute-change-set", "test-connection", "resume-processing"))
		require.Equal(t, 1, r.called("wait stack-update-complete"))
		require.Zero(t, r.called("start-replication"))
	})
	t.Run("StoppedTaskIsResumed", func(t *testing.T) {
		t.Parallel()
		// The task was started before. So this holds also if its state is ready, as after a change
		// of its settings.
		for _, state := range []string{"stopped", "ready"} {
			r := run(t, deployed.with(world{
				taskState:                    {{Out: state + "\t2026-01-01\tNone\tNone\n"}, {Out: state + "\t2026-01-01\tNone\tNone\n"}, {Out: "running\t2026-01-01\tNone\tNone\n"}},
				"dms start-replication-task": out(""),
			}), nil, "deploy-dms.sh", "dev", "us-east-1")
			require.Zero(t, r.Exit, r.Err)
			require.Equal(t, 1, r.called("start-replication-task resume-processing"))
			require.Equal(t, 1, r.called("start-replication-task"))
		}
	})
	t.Run("StopStopsAndDeploysNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed.with(world{
			taskState:                   {{Out: "running\t2026-01-01\tNone\tNone\n"}, {Out: "stopping\t2026-01-01\tNone\tNone\n"}, {Out: "stopped\t2026-01-01\tStop Reason NORMAL\tNone\n"}},
			"dms stop-replication-task": out(""),
		}), nil, "deploy-dms.sh", "dev", "us-east-1", "--stop")
		require.Zero(t, r.Exit, r.Err)
		require.Contains(t, r.Out, "rds-outbox-demo-dev-replication-task: stopped")
		require.Equal(t, 1, r.called("stop-replication-task"))
		require.Zero(t, r.called("cloudformation deploy"))

		r = run(t, deployed.with(world{taskState: out("stopped\t2026-01-01\tNone\tNone")}), nil, "deploy-dms.sh", "--stop", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Zero(t, r.called("stop-replication-task"))
	})
	t.Run("MissingRolesAreMadeAndWaitedFor", func(t *testing.T) {
		t.Parallel()
		stream := strings.ReplaceAll(deployed[mainOutput][0].Out, "arn:stream", "arn:aws:kinesis:us-east-1:123456789012:stream/demo")
		r := run(t, absent.with(world{
			mainOutput:               out(stream),
			"iam get-role":           fails("An error occurred (NoSuchEntity) when calling the GetRole operation: The role cannot be found."),
			"iam create-role":        out(""),
			"iam attach-role-policy": out(""),
			"create-replication-subnet-group": {
				{Err: "An error occurred (AccessDeniedFault) ...: The IAM Role arn:aws:iam::1:role/dms-vpc-role is not configured properly.", Exit: 254}, {}},
			"delete-replication-subnet-group": out(""),
		}), nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"dms.amazonaws.com"},"Action":"sts:AssumeRole"`
		require.Equal(t, 1, r.called("create-role dms-vpc-role "+trust+`,"Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}}}]}`))
		require.Equal(t, 1, r.called("create-role dms-cloudwatch-logs-role "+trust+`}]}`))
		require.Equal(t, 1, r.called("attach-role-policy dms-vpc-role arn:aws:iam::aws:policy/service-role/AmazonDMSVPCManagementRole"))
		require.Equal(t, 1, r.called("attach-role-policy dms-cloudwatch-logs-role arn:aws:iam::aws:policy/service-role/AmazonDMSCloudWatchLogsRole"))
		require.Equal(t, 2, r.called("create-replication-subnet-group subnet-a1 subnet-b"))
		require.Equal(t, 1, r.called("delete-replication-subnet-group rds-outbox-demo-dev-dms-probe"))
	})
	t.Run("HalfMadeRoleIsFinished", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed.with(world{
			"iam list-attached-role-policies":              out("policy"),
			"iam list-attached-role-policies dms-vpc-role": out(""),
			"iam attach-role-policy":                       out(""),
			"create-replication-subnet-group":              out(""), "delete-replication-subnet-group": out(""),
		}), nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, 1, r.called("attach-role-policy"))
		require.Equal(t, 1, r.called("attach-role-policy dms-vpc-role"))
	})
	t.Run("SubnetsWithoutGatewayArePrivate", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed.with(world{"ec2 describe-route-tables": out("None\nsubnet-b")}), nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, 1, r.called("deploy Network=private"))
	})
	t.Run("ProdHasAStandby", func(t *testing.T) {
		t.Parallel()
		prod := world{}
		for words, answers := range deployed {
			words = strings.ReplaceAll(words, "rds-outbox-demo-dev", "rds-outbox-demo-prod")
			prod[words] = answers
		}
		require.Equal(t, 1, run(t, prod, nil, "deploy-dms.sh", "prod", "us-east-1").called("deploy MultiAZ=true"))
		require.Zero(t, run(t, deployed, nil, "deploy-dms.sh", "dev", "us-east-1").called("deploy MultiAZ=true"))
		r := run(t, prod, nil, "deploy-dms.sh", "prod", "us-east-1", "MultiAZ=false", "ReplicationInstanceClass=dms.t3.medium")
		require.Equal(t, 1, r.called("deploy MultiAZ=false ReplicationInstanceClass=dms.t3.medium"))
		require.Zero(t, r.called("deploy MultiAZ=true"))
	})
	t.Run("FailedFirstDeploymentIsCleanedUp", func(t *testing.T) {
		t.Parallel()
		r := run(t, absent.with(world{
			dmsStatus:                     {{Out: "ROLLBACK_COMPLETE\n"}, {Out: "CREATE_COMPLETE\n"}},
			"cloudformation delete-stack": out(""),
		}), nil, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"delete-stack", "stack-delete-complete", "execute-change-set"},
			order(r, "delete-stack", "stack-delete-complete", "execute-change-set"))
	})
	t.Run("EndpointIsPassedOn", func(t *testing.T) {
		t.Parallel()
		r := run(t, deployed, []string{"AWS_ENDPOINT_URL=http://127.0.0.1:5599"}, "deploy-dms.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, len(r.Calls), r.called("--endpoint-url http://127.0.0.1:5599"))
	})
}

// slotsAre is the answer of the migrate function, where slots is what the list holds.
func slotsAre(slots string) []answer {
	return []answer{{Out: "None\n", Err: `{"slots":[` + slots + `]}`}}
}

// order lists the words in the order in which calls had them.
func order(r result, words ...string) []string {
	var all []string
	for _, call := range r.Calls {
		for _, word := range words {
			if strings.Contains(" "+call+" ", " "+word+" ") {
				all = append(all, word)
			}
		}
	}
	return all
}

func TestDeployDMSRefuses(t *testing.T) {
	t.Parallel()
	failing := deployed.with(world{
		"dms start-replication-task": out(""),
		taskState: {{Out: "ready\tNone\tNone\tNone\n"}, {Out: "ready\tNone\tNone\tNone\n"}, {Out: "starting\t2026-01-01\tNone\tNone\n"},
			{Out: "failed\t2026-01-01\tStop Reason FATAL_ERROR\tLast Error Stream Component Fatal error.\n"}},
	})
	const log = "logs filter-log-events dms-tasks-rds-outbox-demo-dev-dms-replication-instance dms-task-rds-outbox-demo-dev"
	for name, test := range map[string]struct {
		world world
		args  string
		want  []string // parts of standard error
		never string   // a call that must not happen
	}{
		"NoArguments":  {world{}, "", []string{"give a stage and a region", "usage: "}, "aws"},
		"OddStage":     {world{}, "Dev us-east-1", []string{"stage 'Dev': use up to 15 lower-case letters and digits"}, "aws"},
		"OddRegion":    {world{}, "dev virginia", []string{"region 'virginia': not the name of an AWS region"}, "aws"},
		"OddOption":    {world{}, "dev us-east-1 --start", []string{"no such option: --start"}, "aws"},
		"OddParameter": {world{}, "dev us-east-1 Network=private", []string{"no such option: Network=private"}, "aws"},
		"EngineRetired": {absent.with(world{"dms describe-orderable-replication-instances": out("3.6.2\n3.6.3\n3.6.2")}),
			"dev us-east-1", []string{"DMS 3.6.1 on dms.t3.small cannot be ordered in us-east-1 any more. Versions of dms.t3.small there: 3.6.2 3.6.3. Give EngineVersion="}, "execute-change-set"},
		"RegionWithoutDMS": {deployed, "dev eu-south-2", []string{"region eu-south-2 has no AWS DMS (AWS::DMS::ReplicationTask): the relay is walrelay there"}, "cloudformation"},
		"NoCredentials": {deployed.with(world{"sts get-caller-identity": fails("Unable to locate credentials. You can configure credentials by running \"aws configure\".")}),
			"dev us-east-1", []string{"no AWS credentials: set AWS_PROFILE, or run aws configure"}, "cloudformation"},
		"NoSuchProfile": {deployed.with(world{"sts get-caller-identity": fails("The config profile (x) could not be found")}),
			"dev us-east-1", []string{"no AWS credentials"}, "cloudformation"},
		"ExpiredCredentials": {deployed.with(world{"sts get-caller-identity": fails("An error occurred (ExpiredToken) when calling the GetCallerIdentity operation: The security token included in the request is expired")}),
			"dev us-east-1", []string{"AWS does not accept the credentials: log in again (", "is expired"}, "cloudformation"},
		"NoSuchRegion": {deployed.with(world{"sts get-caller-identity": fails(`Could not connect to the endpoint URL: "https://sts.eu-nowhere-9.amazonaws.com/"`)}),
			"dev eu-nowhere-9", []string{"no answer from AWS in eu-nowhere-9: is the region's name right"}, "cloudformation"},
		"NoMainStack": {deployed.with(world{mainStatus: fails(noStack)}),
			"dev us-east-1", []string{"there is no stack rds-outbox-demo-dev in us-east-1: is it another stage or region? To make it: make deploy STAGE=dev REGION=us-east-1"}, "deploy"},
		"OutputsMissing": {deployed.with(world{mainOutput: out("VpcId\tvpc-1\nKinesisStreamArn\tarn:stream")}),
			"dev us-east-1", []string{"stack rds-outbox-demo-dev (UPDATE_COMPLETE) has no output DatabaseSecurityGroupId DmsDatabaseSecretArn AlarmTopicArn: deploy it again"}, "deploy"},
		"OneZone": {deployed.with(world{"ec2 describe-subnets": out("us-east-1a\tsubnet-a1\nus-east-1a\tsubnet-a2")}),
			"dev us-east-1", []string{"VPC vpc-1 has subnets in 1 zone(s), and a relay needs two"}, "deploy"},
		"RoleCannotBeMade": {deployed.with(world{
			"iam get-role":    fails("An error occurred (NoSuchEntity) when calling the GetRole operation: The role cannot be found."),
			"iam create-role": fails("An error occurred (AccessDenied) when calling the CreateRole operation: not authorized to perform: iam:CreateRole")}),
			"dev us-east-1", []string{"role dms-vpc-role is missing, or has no policy AmazonDMSVPCManagementRole, and these credentials cannot change that: ", "not authorized", "service-role/AmazonDMSVPCManagementRole"}, "deploy"},
		"RoleNeverUsable": {absent.with(world{
			"iam get-role":    fails("An error occurred (NoSuchEntity) when calling the GetRole operation: The role cannot be found."),
			"iam create-role": out(""), "iam attach-role-policy": out(""),
			"create-replication-subnet-group": fails("An error occurred (AccessDeniedFault): The IAM Role arn:aws:iam::1:role/dms-vpc-role is not configured properly.")}),
			"dev us-east-1", []string{"DMS does not accept the new role dms-vpc-role after 2 minutes: run this again"}, "deploy"},
		"WalrelayRuns": {deployed.with(world{walrelayStatus: out("UPDATE_COMPLETE"), walrelayCount: out("2")}),
			"dev us-east-1", []string{"walrelay runs (2 tasks), and both relays at once send every event twice. Stop it first: make walrelay STAGE=dev REGION=us-east-1 STOP=1"}, "deploy"},
		"StackBusy": {deployed.with(world{dmsStatus: out("UPDATE_IN_PROGRESS")}),
			"dev us-east-1", []string{"stack rds-outbox-demo-dev-dms is UPDATE_IN_PROGRESS: run this again when that is over"}, "deploy"},
		"StackBroken": {deployed.with(world{dmsStatus: out("UPDATE_ROLLBACK_FAILED"), "cloudformation describe-stack-events": out("DmsReplicationTask\tUPDATE_FAILED\ttask is running")}),
			"dev us-east-1", []string{"is UPDATE_ROLLBACK_FAILED (DmsReplicationTask: task is running): repair or delete it"}, "deploy"},
		"StackFails": {absent.with(world{
			dmsStatus:             {{Err: noStack, Exit: 254}, {Out: "ROLLBACK_COMPLETE\n"}},
			"cloudformation wait": {{Err: "Waiter StackCreateComplete failed", Exit: 255}},
			"cloudformation describe-stack-events": out("rds-outbox-demo-dev-dms\tROLLBACK_COMPLETE\tNone\n" +
				"DmsTargetEndpoint\tCREATE_FAILED\tResource creation cancelled\n" +
				"DmsReplicationInstance\tCREATE_FAILED\tnot enough capacity\n" +
				"rds-outbox-demo-dev-dms\tCREATE_IN_PROGRESS\tUser Initiated\n" +
				"DmsLogGroup\tCREATE_FAILED\tan older story")}),
			"dev us-east-1", []string{"stack rds-outbox-demo-dev-dms is ROLLBACK_COMPLETE: DmsReplicationInstance: not enough capacity. When the cause is gone, run this again"}, "start-replication-task"},
		"UpdateFails": {deployed.with(world{
			"cloudformation deploy": out(changes), execute: out(""),
			"cloudformation wait":                  {{Err: "Waiter failed", Exit: 255}},
			taskState:                              {{Out: "running\t2026-01-01\tNone\tNone\n"}, {Out: "stopped\t2026-01-01\tNone\tNone\n"}},
			"dms stop-replication-task":            out(""),
			"cloudformation describe-stack-events": out("DmsReplicationTask\tUPDATE_FAILED\tInvalid task settings JSON")}),
			"dev us-east-1", []string{"the task was stopped for the update and is not resumed", "Invalid task settings JSON"}, "start-replication-task"},
		"ConnectionFails": {absent.with(world{"dms describe-connections Name=endpoint-arn,Values=arn:source": out("failed\tpassword authentication failed for user")}),
			"dev us-east-1", []string{"connection to the database failed: password authentication failed for user. The stack is deployed, the task was not started"}, "start-replication-task"},
		"TaskFails": {failing.with(world{log: out("2026-01-01 [SOURCE_CAPTURE ]E: permission denied for table outbox (postgres_endpoint.c:1)")}),
			"dev us-east-1", []string{"task rds-outbox-demo-dev-replication-task is failed: ", "Stream Component Fatal error.", "permission denied for table outbox", "when the cause is gone, run this again: it resumes"}, ""},
		// A line about a slot that was repaired long ago is older than the start, and must decide
		// nothing.
		"TaskFailsAndAnOldLineNamesTheSlot": {failing.with(world{
			taskSince:                           out("1767225600.5"),
			log:                                 out(`]E: ERROR: replication slot "abc" does not exist`),
			log + " --start-time 1767225600500": out("]E: not authorized to perform: kinesis:PutRecords"),
		}), "dev us-east-1", []string{"not authorized to perform: kinesis:PutRecords. its slot keeps the wal"}, "reload-target"},
		"SlotThereWhateverTheLogSays": {failing.with(world{log: out(`]E: ERROR: replication slot "abc" does not exist`)}),
			"dev us-east-1", []string{"Its slot keeps the WAL"}, "reload-target"},
		"SlotsCannotBeAsked": {deployed.with(world{
			taskState:     out("failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone"),
			invokeMigrate: {{Out: "Unhandled\n", Err: `{"errorMessage":"connecting to database outbox"}`}}}),
			"dev us-east-1", []string{"connecting to database outbox", "could not be asked whether the slot of rds-outbox-demo-dev-replication-task is there"}, "start-replication-task"},
		"OnlyWalrelaysSlotIsThere": {deployed.with(world{
			taskState: out("failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone"), log: out(""),
			invokeMigrate: slotsAre(`{"name":"outbox_relay","plugin":"pgoutput","active":true,"walStatus":"reserved","usable":true}`)}),
			"dev us-east-1", []string{"the database has no replication slot from which DMS could go on", "reload-target"}, "start-replication-task"},
		// Another tool reads the database with a plugin that DMS does not use.
		"AnotherToolsSlotIsThere": {deployed.with(world{
			taskState: out("failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone"), log: out(""), "dms start-replication-task": out(""),
			invokeMigrate: slotsAre(`{"name":"debezium","plugin":"wal2json","active":true,"walStatus":"reserved","usable":true}`)}),
			"dev us-east-1", []string{"the database has no replication slot from which DMS could go on", "reload-target"}, "start-replication-task"},
		"SlotLostWhileStopped": {deployed.with(world{
			taskState: out("stopped\t2026-01-01\tStop Reason NORMAL\tNone"), log: out(""), "dms start-replication-task": out(""),
			invokeMigrate: slotsAre("")}),
			"dev us-east-1", []string{"is stopped (Stop Reason NORMAL)", "the database has no replication slot from which DMS could go on", "reload-target"}, "start-replication-task"},
		// The usable slot may be another tool's, and the lost one DMS's.
		"SeveralSlotsHaveThePlugin": {deployed.with(world{
			taskState: out("stopped\t2026-01-01\tStop Reason NORMAL\tNone"), log: out(""), "dms start-replication-task": out(""),
			invokeMigrate: slotsAre(`{"name":"abc","plugin":"test_decoding","active":false,"walStatus":"lost","usable":false},` +
				`{"name":"of_a_tool","plugin":"test_decoding","active":false,"walStatus":"reserved","usable":true}`)}),
			"dev us-east-1", []string{"several slots have the plugin of DMS, test_decoding: abc of_a_tool", "it does not resume the task",
				"--replication-task-arn arn:task --start-replication-task-type resume-processing", "--start-replication-task-type reload-target"}, "start-replication-task"},
		"SeveralSlotsAndNoneIsUsable": {deployed.with(world{
			taskState: out("stopped\t2026-01-01\tStop Reason NORMAL\tNone"), log: out(""), "dms start-replication-task": out(""),
			invokeMigrate: slotsAre(`{"name":"abc","plugin":"test_decoding","active":false,"walStatus":"lost","usable":false},` +
				`{"name":"of_a_tool","plugin":"test_decoding","active":false,"walStatus":"lost","usable":false}`)}),
			"dev us-east-1", []string{"the database has no replication slot from which DMS could go on", "reload-target"}, "start-replication-task"},
		"TaskFailsWithoutLog": {failing.with(world{log: fails("An error occurred (ResourceNotFoundException)")}),
			"dev us-east-1", []string{"is failed: ", "Stop Reason FATAL_ERROR"}, ""},
		"TaskFailsAMomentLater": {deployed.with(world{
			"dms start-replication-task": out(""), log: out("]E: no such table"),
			taskState: {{Out: "ready\tNone\tNone\tNone\n"}, {Out: "ready\tNone\tNone\tNone\n"}, {Out: "running\t2026-01-01\tNone\tNone\n"},
				{Out: "failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone\n"}}}),
			"dev us-east-1", []string{"is failed: Stop Reason FATAL_ERROR ]E: no such table"}, ""},
		"SlotLost": {deployed.with(world{
			taskState:     out("failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone"),
			log:           out(`]E: ERROR: can no longer get changes from replication slot "abc" This slot has been invalidated`),
			invokeMigrate: slotsAre(`{"name":"abc","plugin":"test_decoding","active":false,"walStatus":"lost","usable":false}`)}),
			"dev us-east-1", []string{"can no longer get changes", "the database has no replication slot from which DMS could go on", "aws dms start-replication-task --region us-east-1 --replication-task-arn arn:task --start-replication-task-type reload-target"}, "start-replication-task"},
		"TaskBusy": {deployed.with(world{taskState: out("modifying\t2026-01-01\tNone\tNone")}),
			"dev us-east-1", []string{"task rds-outbox-demo-dev-replication-task is modifying: run this again when that is over"}, "start-replication-task"},
		"TaskNeverRuns": {deployed.with(world{taskState: out("starting\t2026-01-01\tNone\tNone")}),
			"dev us-east-1", []string{"is still starting after 15 minutes, not running"}, "start-replication-task"},
		"StopWithoutStack": {deployed.with(world{dmsStatus: fails(noStack)}),
			"dev us-east-1 --stop", []string{"there is no stack rds-outbox-demo-dev-dms in us-east-1", "make dms STAGE=dev REGION=us-east-1"}, "stop-replication-task"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, test.world, nil, "deploy-dms.sh", strings.Fields(test.args)...)
			require.Equal(t, 1, r.Exit, r.Err)
			require.Empty(t, r.Out)
			for _, part := range test.want {
				require.Contains(t, strings.ToLower(r.Err), strings.ToLower(part))
			}
			if test.never != "" {
				require.Zero(t, r.called(test.never))
			}
		})
	}
}
