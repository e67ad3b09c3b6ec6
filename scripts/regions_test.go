package scripts

import (
	"bufio"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// regions returns what each region of regions.txt lacks.
func regions(t *testing.T) map[string][]string {
	t.Helper()
	file, err := os.Open("regions.txt")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	lacks := map[string][]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && fields[0] != "#" {
			require.Greater(t, len(fields), 1, "%s lacks nothing", fields[0])
			lacks[fields[0]] = fields[1:]
		}
	}
	require.NotEmpty(t, lacks)
	return lacks
}

// A region is refused for missing roots if and only if the bundle has no roots of it.
func TestRegionsWithoutRoots(t *testing.T) {
	t.Parallel()
	bundle, err := os.ReadFile("../internal/rdsdb/rds-ca-bundle.pem")
	require.NoError(t, err)
	for region, lacks := range regions(t) {
		require.NotEqual(t, slices.Contains(lacks, "roots"), regexp.MustCompile(`\b`+region+`\b`).Match(bundle), region)
	}
}

func TestRegionsAreDocumented(t *testing.T) {
	t.Parallel()
	names := map[string]string{"roots": "the certificate of its databases", "dms": "DMS", "schemas": "EventBridge schemas", "archive": "EventBridge archives"}
	lacks := regions(t)
	var table strings.Builder
	table.WriteString("| Region | lacks | so |\n| --- | --- | --- |\n")
	for _, region := range slices.Sorted(maps.Keys(lacks)) {
		var missing []string
		for _, thing := range lacks[region] {
			require.Contains(t, names, thing)
			missing = append(missing, names[thing])
		}
		so := "walrelay is the relay"
		switch {
		case slices.Contains(lacks[region], "roots"):
			so = "`make deploy` refuses it"
		case slices.Contains(lacks[region], "schemas"):
			so += ", and the contracts are not registered"
		}
		table.WriteString("| " + region + " | " + strings.Join(missing, ", ") + " | " + so + " |\n")
	}
	page, err := os.ReadFile("../docs/deploy.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(page), table.String()), "docs/deploy.md must have this table:\n%s", table.String())
}
