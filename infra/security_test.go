package infra_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// SECURITY.md says what each function may do. TestOneRolePerFunctionNamesSingleResources holds roles, from which the table is made here,
// against the templates.
func TestSecurityPageNamesTheRoles(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../SECURITY.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "### Which function may do what, on what")
	require.True(t, found)
	table := map[string]string{}
	for _, cells := range labtest.TableRows(rest, 2) {
		table[cells[0]] = cells[1]
	}
	want := map[string]string{}
	for id, role := range roles {
		byTargets := map[string][]string{}
		for action, targets := range role {
			on := "`" + strings.Join(slices.Sorted(slices.Values(targets)), "`, `") + "`"
			byTargets[on] = append(byTargets[on], "`"+action+"`")
		}
		var parts []string
		for _, on := range slices.Sorted(maps.Keys(byTargets)) {
			parts = append(parts, strings.Join(slices.Sorted(slices.Values(byTargets[on])), ", ")+" on "+on)
		}
		name := strings.TrimSuffix(id, "Role")
		want[strings.ToLower(name[:1])+name[1:]] = strings.Join(parts, "; ")
	}
	require.Equal(t, want, table)
}

// A promise without a test, or with one that is gone, is a hope.
func TestSecurityPageNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../SECURITY.md")
	require.NoError(t, err)
	rows := labtest.TableRows(string(page), 4)
	require.Greater(t, len(rows), 15)
	for _, cells := range rows {
		require.NotEmpty(t, labtest.NamedTests(cells[2]), cells[0])
		require.NotEmpty(t, cells[3], cells[0])
	}
	labtest.RequireNamedTests(t, "SECURITY.md")
}
