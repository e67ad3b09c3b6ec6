package scripts

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	walrelayCount  = "ecs describe-services services[0].desiredCount"
	walrelayOutput = "describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].Outputs[].[OutputKey,OutputValue]"
	dmsTask        = "describe-replication-tasks ReplicationTasks[0].Status"
	taskStopped    = "describe-replication-tasks ReplicationTasks[0].ReplicationTaskStats.StopDate"
	slotLine       = `{"msg":"slot","slot":"outbox_relay","slot_lag_bytes":880,"retained_wal_bytes":5000,"streaming":1,"ready":true}`
	ourDigest      = "sha256:0123"
	outboxctlLog   = "logs filter-log-events outboxctl/outboxctl/7"
	lastLines      = "outboxctl: end\noutboxctl: end"
)

// relayed is an account with the main stack and with walrelay, which streams. It has a DMS stack,
// whose task is stopped.
var relayed = deployed.with(world{
	mainOutput: out("DatabaseEndpoint\tdb.example.com\nDatabaseSecretArn\tarn:master\nDmsDatabaseSecretArn\tarn:secret\nDatabaseSecurityGroupId\tsg-db\n" +
		"KinesisStreamName\tstream\nKinesisStreamArn\tarn:stream\nEventBusName\tbus\nEventBusLogGroupName\t/aws/events/demo\nFailureQueueUrl\thttps://sqs/1/f\nDiscardQueueUrl\thttps://sqs/1/d\n" +
		"AlarmTopicArn\tarn:topic\nVpcId\tvpc-1\nSlotName\toutbox_relay\nMigrateFunctionName\tthe-function\nRetentionDays\t30"),
	dmsTask:        out("stopped"),
	walrelayStatus: out("UPDATE_COMPLETE"),
	walrelayOutput: out("ClusterName\trds-outbox-demo-dev-walrelay\nLogGroupName\t/ecs/rds-outbox-demo-dev-walrelay\nTaskNetwork\tawsvpcConfiguration={}"),
	"describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].Outputs[?OutputKey=='RepositoryUri'].OutputValue":     out("1.dkr.ecr.us-east-1.amazonaws.com/rds-outbox-demo-dev/walrelay"),
	"describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].Parameters[?ParameterKey=='Tasks'].ParameterValue":    out("1"),
	"describe-stacks rds-outbox-demo-dev-walrelay Stacks[0].Parameters[?ParameterKey=='SlotName'].ParameterValue": out("outbox_relay"),
	"cloudformation deploy":                     out("No changes to deploy. Stack rds-outbox-demo-dev-walrelay is up to date"),
	"ecr get-login-password":                    out("password"),
	"go run ./infra/image":                      out(ourDigest),
	walrelayCount:                               out("1"),
	"ecs wait services-stable":                  out(""),
	"logs filter-log-events":                    out(strings.ReplaceAll(slotLine, `"streaming":1`, `"streaming":0`) + "\n" + slotLine),
	"services[0].events[0].[createdAt,message]": out("1767225600.5\t(service walrelay) was unable to place a task."),
	"ecs list-tasks":                            out("arn:aws:ecs:us-east-1:1:task/c/new"),
})

// unrelayed is the same account before the first `make walrelay`.
var unrelayed = relayed.with(world{
	dmsStatus:               fails(noStack),
	walrelayStatus:          {{Err: noStack, Exit: 254}, {Err: noStack, Exit: 254}, {Out: "CREATE_COMPLETE\n"}},
	"cloudformation deploy": out(changes), execute: out(""), "cloudformation wait": out(""),
	walrelayCount: out("2"),
})

func TestDeployWalrelay(t *testing.T) {
	t.Parallel()

	t.Run("FirstRunMakesTheRepositoryBeforeTheService", func(t *testing.T) {
		t.Parallel()
		r := run(t, unrelayed, nil, "deploy-walrelay.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "walrelay of rds-outbox-demo-dev: 2 tasks, one streams; slot outbox_relay, 880 bytes behind, 5000 bytes of WAL kept\n", r.Out)
		const image = "Image=1.dkr.ecr.us-east-1.amazonaws.com/rds-outbox-demo-dev/walrelay@" + ourDigest
		require.Equal(t, []string{"deploy", "stack-create-complete", "run", "deploy", image, "stack-update-complete", "services-stable"},
			order(r, "deploy", "stack-create-complete", "run", image, "stack-update-complete", "services-stable"))
		require.Equal(t, 2, r.called("deploy Tasks=2 SlotName=outbox_relay StackName=rds-outbox-demo-dev Network=public SubnetIds=subnet-a1,subnet-b "+
			"DmsDatabaseSecretArn=arn:secret DatabaseSecretArn=arn:master DatabaseEndpoint=db.example.com KinesisStreamArn=arn:stream"))
		require.Zero(t, r.called("update-service"))
		require.Zero(t, r.called("create-service-linked-role"), "it is there")
		require.Zero(t, r.called("password"), "in no argument")
	})
	t.Run("SecondRunChangesNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, relayed, nil, "deploy-walrelay.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, 1, r.called("cloudformation deploy Tasks=1"), "as many tasks as before")
		for _, words := range []string{"execute-change-set", "update-service", "stop-replication-task", "run-task"} {
			require.Zero(t, r.called(words), words)
		}
	})
	t.Run("StopEndsEveryTask", func(t *testing.T) {
		t.Parallel()
		r := run(t, relayed.with(world{walrelayCount: {{Out: "2\n"}, {Out: "0\n"}}, "ecs update-service": out("")}), nil, "deploy-walrelay.sh", "dev", "us-east-1", "--stop")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "walrelay of rds-outbox-demo-dev: stopped; slot outbox_relay keeps the WAL\n", r.Out)
		require.Equal(t, 1, r.called("update-service --desired-count 0 rds-outbox-demo-dev-walrelay"))
		require.Zero(t, r.called("cloudformation deploy"))
		require.Zero(t, r.called("go"))
	})
	t.Run("StartsAgainAfterAStop", func(t *testing.T) {
		t.Parallel()
		r := run(t, relayed.with(world{walrelayCount: {{Out: "0\n"}, {Out: "1\n"}}, "ecs update-service": out("")}), nil, "deploy-walrelay.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, 1, r.called("update-service --desired-count 1"))
	})
	t.Run("MakesTheRoleOfECSFirst", func(t *testing.T) {
		t.Parallel()
		without := world{"iam get-role": fails("An error occurred (NoSuchEntity) when calling the GetRole operation")}
		r := run(t, unrelayed.with(without).with(world{"iam create-service-linked-role": out("")}), nil, "deploy-walrelay.sh", "dev", "us-east-1")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, []string{"ecs.amazonaws.com", "deploy", "deploy"}, order(r, "ecs.amazonaws.com", "deploy"))

		r = run(t, unrelayed.with(without).with(world{"iam create-service-linked-role": fails("An error occurred (AccessDenied): not authorized")}),
			nil, "deploy-walrelay.sh", "dev", "us-east-1")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "have an administrator run aws iam create-service-linked-role")
		require.Zero(t, r.called("deploy"))
	})
	t.Run("GoesOnWhereDMSStands", func(t *testing.T) {
		t.Parallel()
		r := run(t, switching, nil, "deploy-walrelay.sh", "dev", "us-east-1", "--from", "dms")
		require.Zero(t, r.Exit, r.Err)
		const environment = `,"environment":[{"name":"RETENTION_DAYS","value":"30"}]}]}`
		const copySlot = `{"containerOverrides":[{"name":"outboxctl","command":["copy-slot","--from","dms"]` + environment
		const audit = `{"containerOverrides":[{"name":"outboxctl","command":["audit","--since","335h"]` + environment
		require.Equal(t, []string{"stop-replication-task", "Tasks=0", copySlot, "Tasks=1", audit},
			order(r, "stop-replication-task", "Tasks=0", copySlot, "Tasks=1", audit), "no relay runs while the slot is copied")
		require.Contains(t, r.Out, "audit: ok")
		require.Contains(t, r.Err, "Not documented is when DMS confirms to its slot")
	})
	t.Run("SlotThatIsNotCopiedStartsNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, switching.with(world{"describe-tasks tasks[0].[containers[0].exitCode,stoppedReason]": out("1\tEssential container exited")}),
			nil, "deploy-walrelay.sh", "dev", "us-east-1", "--from", "dms")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "the slot was not copied. Nothing is lost")
		require.Contains(t, r.Err, "To go back: make dms STAGE=dev REGION=us-east-1")
		require.Zero(t, r.called("deploy Tasks=1"))
	})
	// DMS may have confirmed too early before it stopped, so the lost rows are older than the stop.
	t.Run("AuditBeginsADayBeforeTheStop", func(t *testing.T) {
		t.Parallel()
		stop := time.Now().UTC().Add(-3 * 24 * time.Hour).Truncate(time.Second)
		for version, printed := range map[string]string{"1": fmt.Sprintf("%d.25", stop.Unix()), "2": stop.Format("2006-01-02T15:04:05.250000+00:00")} {
			from, found := strings.CutPrefix(auditWindow(t, out(printed)), `"--from",`)
			require.True(t, found, "version %s of the CLI", version)
			begin, err := time.Parse(time.RFC3339, strings.Trim(from, `"`))
			require.NoError(t, err)
			require.Equal(t, stop.Add(-24*time.Hour), begin.Truncate(time.Second), "version %s of the CLI", version)
		}
	})
	// The audit refuses rows of which the log of the bus remembers nothing.
	t.Run("AuditGoesBackAsFarAsTheLog", func(t *testing.T) {
		t.Parallel()
		for _, printed := range []string{"None", fmt.Sprint(time.Now().Add(-13 * 24 * time.Hour).Unix())} {
			require.Equal(t, `"--since","335h"`, auditWindow(t, out(printed)), printed)
		}
	})
	// An earlier run has copied the slot, and walrelay streams from it.
	t.Run("SlotThatIsThereStopsNothing", func(t *testing.T) {
		t.Parallel()
		r := run(t, switching.with(world{
			walrelayCount: out("2"),
			invokeMigrate: {{Out: "None\n", Err: `{"slots":[{"name":"outbox_relay","plugin":"pgoutput","active":true,"walStatus":"reserved","usable":true}]}`}},
		}), nil, "deploy-walrelay.sh", "dev", "us-east-1", "--from", "dms")
		require.Equal(t, 1, r.Exit)
		require.Contains(t, r.Err, "slot outbox_relay is there")
		require.Contains(t, r.Err, "Nothing was stopped or copied")
		for _, words := range []string{"stop-replication-task", "cloudformation deploy", "update-service", "run-task"} {
			require.Zero(t, r.called(words), words)
		}
	})
}

// auditWindow returns the arguments of the audit after a change from a DMS task that has stopped before, as JSON without the brackets.
// taskStopDate is what the AWS CLI prints of the task's StopDate.
func auditWindow(t *testing.T, taskStopDate []answer) string {
	t.Helper()
	r := run(t, switching.with(world{dmsTask: out("failed"), taskState: out("failed\t2026-01-01\tStop Reason FATAL_ERROR\tNone"), taskStopped: taskStopDate}),
		nil, "deploy-walrelay.sh", "dev", "us-east-1", "--from", "dms")
	require.Zero(t, r.Exit, r.Err)
	audits := regexp.MustCompile(`"command":\["audit",?([^]]*)\]`).FindAllStringSubmatch(strings.Join(r.Calls, "\n"), -1)
	require.Len(t, audits, 1)
	return audits[0][1]
}

// switching is relayed while the DMS task runs and walrelay has no task.
var switching = relayed.with(world{
	dmsTask:                              out("running"),
	taskState:                            {{Out: "running\t2026-01-01\tNone\tNone\n"}, {Out: "stopped\t2026-01-01\tNone\tNone\n"}},
	"dms stop-replication-task":          out(""),
	taskStopped:                          out("None"),
	walrelayCount:                        {{Out: "0\n"}, {Out: "1\n"}},
	"ecs run-task":                       out("arn:aws:ecs:us-east-1:1:task/c/7\tNone"),
	"describe-tasks tasks[0].lastStatus": {{Out: "RUNNING\n"}, {Out: "STOPPED\n"}},
	"describe-tasks tasks[0].[containers[0].exitCode,stoppedReason]": out("0\tEssential container exited"),
	outboxctlLog: out("audit: ok\n" + lastLines),
})

func TestDeployWalrelayRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		world world
		args  string
		want  []string // parts of standard error
		never string   // a call that must not happen
	}{
		"NoArguments": {world{}, "", []string{"give a stage and a region", "usage: "}, "aws"},
		"OddOption":   {world{}, "dev us-east-1 --start", []string{"no such option: --start"}, "aws"},
		"OddFrom":     {world{}, "dev us-east-1 --from walrelay", []string{"--from takes dms"}, "aws"},
		"OddTasks":    {world{}, "dev us-east-1 Tasks=9", []string{"no such option: Tasks=9"}, "aws"},
		"DMSRuns": {relayed.with(world{dmsTask: out("running")}), "dev us-east-1",
			[]string{"the DMS task is running, and both relays at once send every event twice", "make dms STAGE=dev REGION=us-east-1 STOP=1", "FROM=dms"}, "deploy"},
		"DMSStarts": {relayed.with(world{dmsTask: out("starting")}), "dev us-east-1", []string{"the DMS task is starting"}, "deploy"},
		"NoDMSToGoOnFrom": {relayed.with(world{dmsStatus: fails(noStack)}), "dev us-east-1 --from dms",
			[]string{"there is no DMS task to go on from"}, "deploy"},
		"NoMainStack": {relayed.with(world{mainStatus: fails(noStack)}), "dev us-east-1",
			[]string{"there is no stack rds-outbox-demo-dev in us-east-1"}, "deploy"},
		"OldMainStack": {deployed, "dev us-east-1", []string{"has no output", "SlotName", "deploy it again"}, "cloudformation deploy"},
		"ImageFails": {relayed.with(world{"go run ./infra/image": {{Err: "image: building walrelay: exit status 1\n", Exit: 1}}}), "dev us-east-1",
			[]string{"building walrelay", "the image was not pushed"}, "cloudformation deploy"},
		"StackBusy": {relayed.with(world{walrelayStatus: out("UPDATE_IN_PROGRESS")}), "dev us-east-1",
			[]string{"stack rds-outbox-demo-dev-walrelay is UPDATE_IN_PROGRESS: run this again when that is over"}, "execute-change-set"},
		"TasksDoNotStart": {relayed.with(world{"ecs wait services-stable": {{Err: "Waiter failed", Exit: 255}},
			"logs filter-log-events": out(`{"level":"ERROR","msg":"walrelay stopped","error":"no publication"}`)}), "dev us-east-1",
			[]string{"the service has not got 1 running tasks", "was unable to place a task. (2026-01-01t00:00:00.500z)", `its last words: {"level":"ERROR","msg":"walrelay stopped","error":"no publication"}`}, ""},
		"NobodyStreams": {relayed.with(world{"logs filter-log-events": out(strings.ReplaceAll(slotLine, `"streaming":1`, `"streaming":0`))}), "dev us-east-1",
			[]string{"1 tasks of walrelay run and none streams after 3 minutes"}, ""},
		// A deployment has just ended the task that streamed.
		"OnlyAnEndedTaskStreamed": {relayed.with(world{"logs filter-log-events walrelay/walrelay/new": out("None")}), "dev us-east-1",
			[]string{"1 tasks of walrelay run and none streams after 3 minutes"}, ""},
		"DMSCannotBeAsked": {relayed.with(world{dmsTask: fails("An error occurred (AccessDeniedException) when calling the DescribeReplicationTasks operation")}), "dev us-east-1",
			[]string{"aws dms describe-replication-tasks: An error occurred (AccessDeniedException)"}, "deploy"},
		"StopWithoutStack": {relayed.with(world{walrelayStatus: fails(noStack)}), "dev us-east-1 --stop",
			[]string{"there is no stack rds-outbox-demo-dev-walrelay", "make walrelay STAGE=dev REGION=us-east-1"}, "update-service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, test.world, nil, "deploy-walrelay.sh", strings.Fields(test.args)...)
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

func TestRunOutboxctl(t *testing.T) {
	t.Parallel()

	t.Run("PrintsAndEndsAsOutboxctlDoes", func(t *testing.T) {
		t.Parallel()
		r := run(t, switching.with(world{"describe-tasks tasks[0].[containers[0].exitCode,stoppedReason]": out("1\tEssential container exited"),
			outboxctlLog: out("audit: rows\nMISSING: 1 events\n" + lastLines)}), nil,
			"run-outboxctl.sh", "dev", "us-east-1", "audit", "--from", "2026-03-01T12:00:00Z")
		require.Equal(t, 1, r.Exit)
		require.Equal(t, "audit: rows\nMISSING: 1 events\n", r.Out)
		require.Equal(t, 1, r.called(`run-task rds-outbox-demo-dev-outboxctl awsvpcConfiguration={} `+
			`{"containerOverrides":[{"name":"outboxctl","command":["audit","--from","2026-03-01T12:00:00Z"],"environment":[{"name":"RETENTION_DAYS","value":"30"}]}]}`))
	})
	t.Run("WaitsForTheLog", func(t *testing.T) {
		t.Parallel()
		r := run(t, switching.with(world{outboxctlLog: {
			{Out: "None\n"}, {Out: "audit: rows\n"}, {Out: "audit: rows\noutboxctl: end\n"}, {Out: "audit: rows\noutboxctl: end\naudit: ok\noutboxctl: end\n"},
		}}), nil, "run-outboxctl.sh", "dev", "us-east-1", "audit")
		require.Zero(t, r.Exit, r.Err)
		require.Equal(t, "audit: rows\naudit: ok\n", r.Out, "whole, and once")
		require.NotContains(t, r.Err, "missing")

		// A task that was killed wrote no last line.
		r = run(t, switching.with(world{outboxctlLog: out("audit: rows"),
			"describe-tasks tasks[0].[containers[0].exitCode,stoppedReason]": out("137\tOutOfMemoryError")}), nil, "run-outboxctl.sh", "dev", "us-east-1", "audit")
		require.Equal(t, 137, r.Exit)
		require.Equal(t, "audit: rows\n", r.Out)
		require.Contains(t, r.Err, "the log has no end after 2 minutes, so lines may be missing")
	})
	for name, test := range map[string]struct {
		changes world
		args    string
		want    string
	}{
		"NoCommand":    {world{}, "dev us-east-1", "usage: "},
		"Quotes":       {world{}, `dev us-east-1 where "x"`, "without quotes and backslashes"},
		"NoRoom":       {world{"ecs run-task": out("None\tRESOURCE:ENI")}, "dev us-east-1 audit", "no task was started: RESOURCE:ENI"},
		"OldMainStack": {deployed, "dev us-east-1 audit", "has no output RetentionDays: deploy it again"},
		"NeverRan":     {world{"describe-tasks tasks[0].[containers[0].exitCode,stoppedReason]": out("None\tCannotPullContainerError")}, "dev us-east-1 audit", "outboxctl did not run: CannotPullContainerError"},
		"NoWalrelay":   {world{walrelayStatus: fails(noStack)}, "dev us-east-1 audit", "there is no stack rds-outbox-demo-dev-walrelay"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, switching.with(test.changes), nil, "run-outboxctl.sh", strings.Fields(test.args)...)
			require.Contains(t, r.errorLine(t), test.want)
			require.Equal(t, 1, r.Exit)
		})
	}
}
