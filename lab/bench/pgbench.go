package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/domain/statements"
)

// tools are the paths of PostgreSQL's own programs that set the limit. A path is empty where the
// program is not installed.
type tools struct{ pgbench, recvlogical string }

// install tells how to get them.
const install = "install pgbench and pg_recvlogical (Debian: postgresql and postgresql-client)"

func findTools() tools { return tools{find("pgbench"), find("pg_recvlogical")} }

// find returns the program's path. It looks on the PATH, and then for the newest version where
// Debian's packages put it.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return found[len(found)-1]
}

// besidePgbench measures ours, a row each. Where pgbench is installed, it measures pgbench with as
// many clients, too. Each round has the given number of transactions.
func (e *environment) besidePgbench(ctx context.Context, rows []Row, database string, clients, transactions int, ours ...measurement) ([]Row, error) {
	name, missing := fmt.Sprintf("pgbench -c %d", clients), install
	if e.tools.pgbench != "" {
		missing = ""
		ours = append(ours, func(ctx context.Context) (float64, error) { return e.pgbench(ctx, database, clients, transactions) })
	}
	values, err := e.alternate(ctx, ours...)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].Unit, rows[i].Ours, rows[i].LimitName, rows[i].Missing = "requests/s", values[i], name, missing
		if missing == "" {
			rows[i].Limit = values[len(values)-1]
		}
	}
	return rows, nil
}

// pgbench runs the statements of POST /cars as the API sends them, prepared and in one round trip.
// It returns transactions a second.
func (e *environment) pgbench(ctx context.Context, database string, clients, transactions int) (float64, error) {
	script := filepath.Join(e.Dir, "create.pgbench")
	if err := os.WriteFile(script, []byte(createScript()), 0o600); err != nil {
		return 0, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return 0, err
	}
	arguments := []string{
		"-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)), "-t", strconv.Itoa(transactions / clients),
		"-D", "run=" + id.String()[:24], "-D", "i=0",
	}
	for name, value := range createValues {
		arguments = append(arguments, "-D", name+"="+value)
	}
	out, err := exec.CommandContext(ctx, e.tools.pgbench, append(arguments, database)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	return readTPS(string(out))
}

// createValues are the parameters that are the same in every transaction. They are as long as what
// the API sends.
var createValues = map[string]string{
	"type": domain.AggregateType, "version": "1", "event": domain.Created, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
	"data": statements.EventData,
}

func init() { maps.Copy(createValues, statements.Values) }

// createScript returns the generated SQL with pgbench's variables for its parameters. pgbench has
// only numbers, so the server makes each id of a number, in the order of time, as the API's ids
// are.
func createScript() string {
	const car = "(:run || lpad(to_hex(:n::bigint), 12, '0'))::uuid"
	const event = "(:run || lpad(to_hex(:n::bigint + 1), 12, '0'))::uuid"
	return `\set i :i + 2
\set n :client_id * 1000000000 + :i
\startpipeline
` + statement(dbgen.CarInsert, append([]string{car}, statements.Parameters...)...) +
		statement(dbgen.OutboxInsert, event, ":type", car+"::text", ":version", ":event", ":data", ":traceparent") +
		`\endpipeline
`
}

var parameter = regexp.MustCompile(`\$\d+`)

// statement puts the values in the place of $1, $2 ...
func statement(sql string, values ...string) string {
	return strings.TrimSpace(parameter.ReplaceAllStringFunc(sql, func(p string) string {
		n, _ := strconv.Atoi(p[1:])
		return values[n-1]
	})) + ";\n"
}

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without initial connection time|excluding connections establishing)\)`)

func readTPS(output string) (float64, error) {
	match := tps.FindStringSubmatch(output)
	if match == nil {
		return 0, fmt.Errorf("pgbench says no tps: %s", output)
	}
	return strconv.ParseFloat(match[1], 64)
}
