package docs_test

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const costPage = "docs/cost.md"

// TestCostSums computes each formula of docs/cost.md from the page's prices and counts, because a
// new price must change the sums.
func TestCostSums(t *testing.T) {
	t.Parallel()
	computed := 0
	known := map[string]map[string]float64{} // by column
	for _, stage := range []string{"dev", "prod"} {
		known[stage] = map[string]float64{}
	}
	for _, row := range costRows(t) {
		switch row.header[1] {
		case "price":
			for _, values := range known {
				values[row.name] = costNumber(t, row.cells[1])
			}
		case "dev":
			known["dev"][row.name], known["prod"][row.name] = costNumber(t, row.cells[1]), costNumber(t, row.cells[2])
		case "what":
			for i, column := range row.header[3:] {
				stage, million := costColumn(t, column)
				if million > 0 && known[column] == nil {
					known[column] = maps.Clone(known[stage])
					known[column]["million"], known[column]["traced"] = million, costTraced(million)
				}
				if million > 0 {
					stage = column
				}
				got := costValue(t, known[stage], strings.Trim(row.cells[2], "`"))
				shown := row.cells[3+i]
				_, decimals, _ := strings.Cut(shown, ".")
				require.Equal(t, shown, "$"+costFormat(got, len(decimals)), "%s, %s: %s", row.name, column, row.cells[2])
				known[stage][row.name] = got
				if column == "any stage" {
					known["dev"][row.name] = got
				}
				computed++
			}
		default:
			require.Fail(t, "a table of an unknown kind", "%v", row.header)
		}
	}
	require.Greater(t, computed, 35)

	// The sentences around the last table.
	text := read(t, costPage)
	prod := known["prod"]
	for _, amount := range []float64{
		730 * prod["dms"], 730 * (prod["shard"] + prod["week"]),
		3040*prod["api"] - 333*3.50 - 667*2.80 - 2040*2.38,
	} {
		require.True(t, strings.Contains(text, "$"+costFormat(amount, 2)), "the page does not say $%s", costFormat(amount, 2))
	}
	scaling := read(t, "docs/scaling.md")
	for _, amount := range []float64{730 * (prod["shard"] + prod["week"]), 15 * 730 * (prod["shard"] + prod["week"]), 3040 * prod["each"]} {
		require.True(t, strings.Contains(scaling, "$"+costFormat(amount, 2)), "docs/scaling.md does not say $%s", costFormat(amount, 2))
	}
	// Break-even: what walrelay's log may cost until DMS is cheaper, at an event a call and at 500.
	full := (0.38 + 499*0.035) / 500 * prod["log"]
	saved := prod["with-dms"] - prod["with-machine"] - 2*prod["metric"]
	for _, said := range []string{
		costDifference(saved), costFormat(saved/prod["relaying"]/30.4, 1) + " million", costFormat(saved/full/30.4, 0) + " million",
		costDifference(prod["with-dms"] - prod["with-walrelay"] - 2*prod["metric"]),
		"$" + costFormat(730*prod["zones"]*prod["walrelay-endpoints"]*prod["endpoint"], 2),
		"$" + costFormat(prod["tasks"]*(182.5*prod["vcpu"]+365*prod["gb"]), 2), "$" + costFormat(730*prod["dms-machines"]*prod["dms"], 2),
	} {
		require.True(t, strings.Contains(text, said), "the page does not say %s", said)
	}
	require.Less(t, known["dev"]["by-walrelay"], known["dev"]["by-dms"], "in dev walrelay is the cheaper one")
	for column, share := range map[string]string{"10 thousand a day": "26 %", "1 million a day": "15 %", "100 million a day": "0.3 %"} {
		at := known[column]
		for _, said := range []string{costDifference(at["total-dms"] - at["total-machine"]), costDifference(at["total-dms"] - at["total-walrelay"]), share} {
			require.True(t, strings.Contains(text, said), "the page does not say %s, at %s", said, column)
		}
		require.InDelta(t, costNumber(t, strings.TrimSuffix(share, " %")), 100*at["by-dms"]/at["total-dms"], 0.5)
	}
}

// costDifference is what the cheaper one saves, or with a minus costs more.
func costDifference(amount float64) string {
	sign := ""
	if amount < 0 {
		sign = "-"
	}
	return sign + "$" + costFormat(math.Abs(amount), 2)
}

// costTraced is the share of requests that X-Ray records, which are the first of each second and 5
// % of the others.
func costTraced(million float64) float64 {
	rate := million * 1e6 / 30.4 / 86400 // a second
	if rate <= 1 {
		return 1
	}
	return (1 + 0.05*(rate-1)) / rate
}

// TestCostCounts compares the page's counts with the templates and the code.
func TestCostCounts(t *testing.T) {
	t.Parallel()
	var serverless struct {
		Params map[string]map[string]any
		Custom map[string]any
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "serverless.yml")), &serverless))
	require.Equal(t, 168, serverless.Custom["streamRetentionHours"])
	counts := map[string][]string{}
	for _, row := range costRows(t) {
		if row.header[1] == "dev" {
			counts[row.name] = row.cells[1:3]
		}
	}
	require.Len(t, counts, 18)
	for i, stage := range []string{"dev", "prod"} {
		is := func(name string, want int) {
			require.Equal(t, strconv.Itoa(want), counts[name][i], "%s of %s", name, stage)
		}
		either := func(yes bool) int { return map[bool]int{true: 1}[yes] }
		params := serverless.Params[stage]
		private := params["network"] == "private"
		require.Equal(t, !private, params["databasePublic"])
		is("micro", either(params["databaseClass"] == "db.t4g.micro"))
		is("medium", either(params["databaseClass"] == "db.t4g.medium"))
		require.Equal(t, params["databaseClass"] == "db.t4g.medium", params["databaseMultiAz"])
		disk, err := strconv.Atoi(params["databaseStorage"].(string))
		require.NoError(t, err)
		is("disk", disk*(1+either(params["databaseMultiAz"] == true)))
		is("shards", params["streamShards"].(int))
		is("alarms", costCount(t, `(?m)^ +Type: AWS::CloudWatch::Alarm$`, "infra/*.yml")-costCount(t, `(?m)^ {6}Metrics:$`, "infra/*.yml")+
			costCount(t, `(?m)^ +MetricStat:$`, "infra/*.yml"))
		is("dms-alarms", costCount(t, `(?m)^ +Type: AWS::CloudWatch::Alarm$`, "dms-setup.yaml"))
		is("dashboards", costCount(t, `Type: AWS::CloudWatch::Dashboard\b`, "infra/*.yml"))
		is("secrets", costCount(t, `Type: AWS::SecretsManager::Secret\b`, "infra/*.yml"))
		is("metrics", costCount(t, `emf\.Metric\{Name: |\{Name: "\w+", Unit: emf`, "handlers/*/*.go")+costCount(t, `Type: AWS::Logs::MetricFilter\b`, "infra/*.yml"))
		is("relay-metrics", costCount(t, `emf\.Metric\{Name: |\{Name: "\w+", Unit: emf`, "walrelay/*.go"))
		is("slot-metrics", costCount(t, `\{Name: "\w+", Unit: emf`, "walrelay/measure.go"))
		is("dms-machines", 1+either(costCount(t, `\[\[ \$stage == `+stage+` .*MultiAZ=true`, "scripts/deploy-dms.sh") == 1))
		is("tasks", costDefaultTasks(t))
		is("walrelay-alarms", costCount(t, `(?m)^ +Type: AWS::CloudWatch::Alarm$`, "walrelay-setup.yaml"))
		inOneZone := costCount(t, `(?m)^      SubnetIds: \[!Select \[0, `, "walrelay-setup.yaml")
		is("queue-endpoints", either(private)*inOneZone)
		is("walrelay-endpoints", costCount(t, `VpcEndpointType: Interface`, "walrelay-setup.yaml")-inOneZone)
		is("zones", 2*either(private))
		is("addresses", either(!private))
	}
	require.Equal(t, 2, costCount(t, `VpcEndpointType: Interface`, "infra/network-private.yml"), "Secrets Manager's in access, Kinesis's with the relay")
	require.Zero(t, costCount(t, `AWS::EC2::VPCEndpoint`, "dms-setup.yaml"))
	require.Equal(t, 1, costCount(t, `Default: dms\.t3\.small`, "dms-setup.yaml"))
}

// costDefaultTasks is how many tasks deploy-walrelay.sh deploys when nobody says otherwise, and of the size on the page.
func costDefaultTasks(t *testing.T) int {
	t.Helper()
	require.Equal(t, 2, costCount(t, `(?m)^      Cpu: "256"\n      Memory: "512"$`, "walrelay-setup.yaml"), "a quarter of a vCPU, half a GB")
	found := regexp.MustCompile(`\|\| tasks=(\d)`).FindStringSubmatch(read(t, "scripts/deploy-walrelay.sh"))
	require.NotNil(t, found)
	tasks, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return tasks
}

// costCount is how often the pattern occurs in the files that are no tests.
func costCount(t *testing.T, pattern, files string) (n int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, files))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		n += len(regexp.MustCompile(pattern).FindAll(content, -1))
	}
	return n
}

type costRow struct {
	header, cells []string
	name          string
}

// costRows are the rows of the page's tables, whose first column is a name.
func costRows(t *testing.T) (rows []costRow) {
	t.Helper()
	var header []string
	for line := range strings.Lines(read(t, costPage)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			header = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case header == nil:
			require.Equal(t, "name", cells[0])
			header = cells
		case !strings.HasPrefix(cells[0], "-"):
			require.Len(t, cells, len(header), line)
			rows = append(rows, costRow{header, cells, strings.Trim(cells[0], "`")})
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

// costColumn is the stage whose counts a column is computed with, and millions of events a month.
func costColumn(t *testing.T, column string) (stage string, million float64) {
	t.Helper()
	switch column {
	case "dev", "prod":
		return column, 0
	case "any stage":
		return "prod", 0
	}
	words := strings.Fields(column)
	unit := map[string]float64{"thousand": 1e-3, "million": 1}[words[1]]
	require.NotZero(t, unit, column)
	return "prod", costNumber(t, words[0]) * unit * 30.4
}

// costValue computes a sum of products.
func costValue(t *testing.T, known map[string]float64, formula string) (sum float64) {
	t.Helper()
	for term := range strings.SplitSeq(formula, " + ") {
		product := 1.0
		for factor := range strings.SplitSeq(term, " × ") {
			value, isName := known[factor]
			if !isName {
				value = costNumber(t, factor)
			}
			product *= value
		}
		sum += product
	}
	return sum
}

func costNumber(t *testing.T, text string) float64 {
	t.Helper()
	number, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimPrefix(text, "$"), ",", ""), 64)
	require.NoError(t, err, "%q is neither a number nor a name from above", text)
	return number
}

// costFormat writes 1234.5 as 1,234.50.
func costFormat(value float64, decimals int) string {
	scale := math.Pow10(decimals)
	text := fmt.Sprintf("%.*f", decimals, math.Round(value*scale+1e-6)/scale)
	for at := strings.Index(text+".", ".") - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
