package chaos

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// `make chaos SABOTAGE=list` prints them, and xargs takes a quotation mark for its own.
func TestEverySabotageHasASentence(t *testing.T) {
	t.Parallel()
	for _, s := range Sabotages {
		require.Regexp(t, `^[a-z-]+$`, s.Name)
		require.Regexp(t, `^[A-Za-z, -]{20,80}$`, s.Says)
	}
}
