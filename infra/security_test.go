package infra_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// SECURITY.md says what each function may do. The table is made from roles here, and
// TestOneRolePerFunctionNamesSingleResources compares roles with the templates.
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

var action = regexp.MustCompile("`([a-z]+:[A-Z][A-Za-z]+)`")

// docs/architecture.md names the actions in its own words, without logs and traces.
// TestWalrelaySetupGrantsSingleResources and TestDMSSetupKeepsEvents check the resources of the
// relays' roles.
func TestArchitectureNamesTheRights(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/architecture.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "## Who runs, as whom, where")
	require.True(t, found)
	table, _, _ := strings.Cut(rest, "\n## ")
	said, networks := map[string][]string{}, map[string]string{}
	for _, cells := range labtest.TableRows(table, 4) {
		name, _, _ := strings.Cut(cells[0], " ")
		name = strings.TrimSuffix(name, ",")
		for _, match := range action.FindAllStringSubmatch(cells[1], -1) {
			said[name] = append(said[name], match[1])
		}
		networks[name] = cells[3]
	}
	s := packaged(t, "prod")
	want := map[string][]string{
		"walrelay":  actionsOf(t, "walrelay-setup.yaml", "RelayRole"),
		"outboxctl": actionsOf(t, "walrelay-setup.yaml", "OperatorRole"),
		"DMS":       actionsOf(t, "dms-setup.yaml", "DmsKinesisRole", "DmsSecretRole"),
	}
	for id, role := range roles {
		name := strings.TrimSuffix(id, "Role")
		function := strings.ToLower(name[:1]) + name[1:]
		for action := range role {
			if !strings.HasPrefix(action, "logs:") && !strings.HasPrefix(action, "xray:") {
				want[function] = append(want[function], action)
			}
		}
		network := "private subnets"
		if s.Resources[name+"LambdaFunction"].Properties["VpcConfig"] == nil {
			network = "outside the VPC"
		}
		require.Equal(t, network, networks[function], function)
	}
	require.Len(t, said, len(want))
	for name, actions := range want {
		require.ElementsMatch(t, actions, said[name], name)
	}
}

// actionsOf returns the actions of the roles in a template that osls does not make.
func actionsOf(t *testing.T, file string, roles ...string) (actions []string) {
	t.Helper()
	resources := resourcesOf(t, file)
	for _, role := range roles {
		for _, policy := range resources[role].get(t, "Policies").([]any) {
			for _, statement := range policy.(map[string]any)["PolicyDocument"].(map[string]any)["Statement"].([]any) {
				for _, action := range list(statement.(map[string]any)["Action"]) {
					actions = append(actions, action.(string))
				}
			}
		}
	}
	return actions
}

// Every promise names a test, and the test exists.
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
