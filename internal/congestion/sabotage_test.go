package congestion

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/sabotage"
)

// Without the window the tests of the consumer and of the relay that show its purpose fail.
func TestTheSimulationsCatchFixedConcurrency(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ dir, run string }{
		{"handlers/cdcconsumer", "TestABusOfAnyCapacityIsUsedAndNotFlooded/^6ASecondOf2Shards$"},
		{"walrelay", "TestALinkOfAnyBandwidthIsUsed/4Mbits/1000Bytes/GoesOn=true"},
	} {
		t.Run(test.dir, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), "go", "test", "-trimpath", "-vet=off", "-tags", "sabotage", "-count", "1", "-run", test.run, "./"+test.dir)
			command.Dir = "../.."
			command.Env = append(command.Environ(), "CGO_ENABLED=0", "SABOTAGE_RULE="+string(sabotage.FixedConcurrency))
			out, err := command.CombinedOutput()
			require.Error(t, err, "not caught:\n%s", out)
			require.Contains(t, string(out), "--- FAIL: ", "%s", out)
			require.Contains(t, string(out), "goodput")
		})
	}
}
