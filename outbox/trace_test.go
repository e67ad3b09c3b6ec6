package outbox_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/outbox"
)

func TestTraceID(t *testing.T) {
	t.Parallel()
	const valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", outbox.TraceID(valid))
	require.Empty(t, outbox.TraceID(""))

	pattern := regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)
	rapid.Check(t, func(t *rapid.T) {
		s := []byte(valid)
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			s[rapid.IntRange(0, len(s)-1).Draw(t, "at")] = rapid.SampledFrom([]byte("09afgAF-/:`{\x00 ")).Draw(t, "byte")
		}
		text := string(s)[:rapid.SampledFrom([]int{len(s), len(s), len(s) - 1}).Draw(t, "length")]
		text += rapid.SampledFrom([]string{"", "", "0"}).Draw(t, "more")
		require.Equal(t, pattern.MatchString(text), outbox.ValidTraceparent(text), "%q", text)
	})
	for _, zero := range []string{
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
	} {
		require.False(t, outbox.ValidTraceparent(zero))
	}
}
