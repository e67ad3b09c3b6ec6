package faults

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/local"
)

func TestEachFaultIsDescribed(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, f := range Of(&local.Path{}) {
		names[f.Name] = true
		require.NotEmpty(t, f.Label, f.Name)
		require.True(t, f.Hop >= 1 && f.Hop <= 6, f.Name)
		for _, text := range []string{f.Text, f.AWS} {
			require.Regexp(t, `^[A-Z].{30,}\.$`, text)
			require.Less(t, strings.Count(text, ". "), 3, "a few sentences, each with one fact: %s", text)
		}
	}
	require.Len(t, names, 10)
}

func TestEachRuleIsValid(t *testing.T) {
	t.Parallel()
	for _, f := range Of(&local.Path{}) {
		for _, rule := range f.Rules {
			require.NoError(t, rule.Validate(), f.Name)
		}
	}
}

// A fault is for what this program has started. A relay is always its own.
func TestFaultsOfWhatIsTheUsersOwn(t *testing.T) {
	t.Parallel()
	for _, f := range Of(&local.Path{}) {
		if f.Name == "kill-relay" || f.Name == "two-relays" {
			require.NoError(t, f.Can())
			continue
		}
		var notNow local.NotNowError
		require.ErrorAs(t, f.Can(), &notNow, f.Name)
		require.ErrorContains(t, notNow, "not ours to break")
		require.False(t, f.InForce(), f.Name)
	}
}
