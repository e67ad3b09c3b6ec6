package walrelay_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/walrelay"
)

// Right after a deployment permissions and credentials may not be known everywhere yet. The relay is there when they are.
func TestARelayThatIsRefusedGoesOnAfterwards(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"AccessDeniedException", "UnrecognizedClientException"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.append(t, "a", 10, 1, 2)
			look := r.aws.Faults().Add(awslocal.Fault{Operation: "DescribeStreamSummary", Kind: awslocal.CallError, Code: code, Count: 1})
			put := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.CallError, Code: code, Count: 5})
			stop := r.start(t)
			r.await(t, 20)
			r.append(t, "a", 10, 3, 4)
			r.requireWhole(t, r.await(t, 40))
			require.Equal(t, 1, look.Struck(), "no session more")
			require.Equal(t, 5, put.Struck())
			require.NoError(t, stop())
			require.Contains(t, r.logged(), code)
		})
	}
}

// PutRecords works, and Kinesis does not describe the stream, to a relay that starts and to one that connects again.
func TestTheRelayConnectsWhileTheStreamCannotBeDescribed(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]awslocal.Fault{
		"Down":         {Kind: awslocal.CallError, Status: 503},
		"Throttled":    {Kind: awslocal.CallError, Code: "LimitExceededException"},
		"NoPermission": {Kind: awslocal.CallError, Code: "AccessDeniedException"},
		"NoAnswer":     {Kind: awslocal.LostAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.append(t, "a", 10, 1, 2)
			down.Service, down.Operation = "kinesis", "DescribeStreamSummary"
			fault := r.aws.Faults().Add(down)
			r.start(t)
			r.await(t, 20)
			pid := r.streaming(t)
			struck := fault.Struck()
			require.Positive(t, struck)
			r.exec(t, "SELECT pg_terminate_backend($1)", pid)
			r.eventually(t, "a new session", func() bool { return fault.Struck() > struck })
			r.append(t, "a", 10, 3, 4)
			r.requireWhole(t, r.await(t, 40))
			require.Equal(t, 1, strings.Count(r.logged(), "the stream was not described"), "once")
		})
	}
}

func TestAStreamThatDoesNotExistEndsTheRelay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	config := r.config(t)
	config.Stream = "absent"
	relay, err := walrelay.New(config)
	require.NoError(t, err)
	var setup *walrelay.SetupError
	require.ErrorAs(t, relay.Run(t.Context()), &setup)
	require.Contains(t, setup.Problem, "absent")
	require.Contains(t, setup.Remedy, "region")
}
