package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// An event whose object has expired can never be processed again.
func TestObjectsOutliveTheirEvents(t *testing.T) {
	t.Parallel()
	setting := func(file, name string) int {
		text, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		found := regexp.MustCompile(name + `: (\d+)`).FindSubmatch(text)
		require.NotNil(t, found, "%s has no %s", file, name)
		value, err := strconv.Atoi(string(found[1]))
		require.NoError(t, err)
		return value
	}
	const day = 24 * 60 * 60
	stream := setting("serverless.yml", "streamRetentionHours") / 24
	sum := setting("serverless.yml", "retentionDays") + 2*stream + setting("infra/bus.yml", "RetentionDays") +
		setting("infra/consumer.yml", "MessageRetentionPeriod")/day + setting("infra/carstats.yml", "MessageRetentionPeriod")/day
	require.Equal(t, 70, sum, "docs/payloads.md says another sum")
	require.Greater(t, setting("examples/claimcheck/bucket.yml", "ExpirationInDays"), sum)
}
