package walrelay_test

import (
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
			look := r.aws.Faults().Add(awslocal.Fault{Operation: "DescribeStreamSummary", Kind: awslocal.CallError, Code: code, Count: 3})
			put := r.aws.Faults().Add(awslocal.Fault{Operation: "PutRecords", Kind: awslocal.CallError, Code: code, Count: 5})
			stop := r.start(t)
			r.await(t, 20)
			r.append(t, "a", 10, 3, 4)
			r.requireWhole(t, r.await(t, 40))
			require.Equal(t, 3, look.Struck())
			require.Equal(t, 5, put.Struck())
			require.NoError(t, stop())
			require.Contains(t, r.logged(), code)
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
