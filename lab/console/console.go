// Package console is the SQL console of the local database: psql where it is installed, else enough to look around and try things.
// In: statements that end in a semicolon, \d or \q. Out: aligned tables, command tags, and errors, after which it goes on.
package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const listTables = `SELECT relname AS "table", obj_description(oid) AS "what a row is" FROM pg_class
	WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = 'public'::regnamespace ORDER BY relname;`

// Run answers what it reads from in until its end, \q, or the end of ctx. It fails when the database cannot be reached or the
// connection breaks; a refused statement is part of the output.
func Run(ctx context.Context, databaseURL string, in io.Reader, out io.Writer) error {
	file, _ := in.(*os.File)
	info, err := file.Stat() // of a nil file: an error
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	if psql, err := exec.LookPath("psql"); err == nil && terminal {
		return runPsql(psql, databaseURL, in, out)
	}
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return err
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { _, _ = fmt.Fprintf(out, "%s: %s\n", n.Severity, n.Message) }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan string) // read beside the loop: only a line ends a read from a terminal
	go func() {
		defer close(lines)
		reader := bufio.NewReader(in)
		for line, err := "", error(nil); err == nil && ctx.Err() == nil; {
			line, err = reader.ReadString('\n')
			select {
			case lines <- line:
			case <-ctx.Done():
			}
		}
	}()
	for pending, more := "", true; more; {
		if terminal {
			_, _ = fmt.Fprintf(out, "%s> ", config.Database)
		}
		line := ""
		select {
		case line, more = <-lines:
		case <-ctx.Done():
			return nil
		}
		switch command := strings.TrimSpace(line); {
		case pending != "":
			pending += line
		case command == `\q`:
			return nil
		case command == `\d`:
			pending = listTables
		case strings.HasPrefix(command, `\`):
			_, _ = fmt.Fprintln(out, `\q ends, \d lists the tables; a statement ends with a semicolon`)
		case command != "":
			pending = line
		}
		if pending != "" && (!more || complete(pending)) { // cut off by the input's end: the server says what is missing
			if err := execute(ctx, conn.PgConn(), pending, out); err != nil {
				return err
			}
			pending = ""
		}
	}
	return nil
}

// runPsql keeps the password off the command line, which every user of the machine can read. Ctrl-C is psql's: it cancels a
// statement, so ctx, which the same signal ends, must not end psql.
func runPsql(psql, databaseURL string, in io.Reader, out io.Writer) error {
	address, err := url.Parse(databaseURL)
	if err != nil {
		return errors.New("the database URL is not a URL") // url's error repeats it, with the password
	}
	password, _ := address.User.Password()
	address.User = url.User(address.User.Username())
	cmd := exec.Command(psql, address.String())
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(cmd.Environ(), "PGPASSWORD="+password), in, out, os.Stderr
	return cmd.Run()
}

// quoted is text in which a semicolon ends nothing: strings, names, comments, function bodies.
var quoted = regexp.MustCompile(`(?s)'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\$\w*\$.*?\$\w*\$`)

func complete(sql string) bool {
	rest := strings.TrimSpace(quoted.ReplaceAllString(sql, ""))
	return strings.HasSuffix(rest, ";") && !strings.ContainsAny(rest, `'"$`) && !strings.Contains(rest, "/*")
}

// execute sends the text as it is: the simple protocol takes several statements, as one transaction.
func execute(ctx context.Context, conn *pgconn.PgConn, sql string, out io.Writer) error {
	results := conn.Exec(ctx, sql)
	for results.NextResult() {
		printResult(results.ResultReader(), out)
	}
	err := results.Close()
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && !conn.IsClosed() {
		_, err = fmt.Fprintln(out, refused)
	}
	return err
}

func printResult(result *pgconn.ResultReader, out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells []string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) }
	var names, rules []string
	for _, field := range result.FieldDescriptions() {
		names, rules = append(names, field.Name), append(rules, strings.Repeat("-", len([]rune(field.Name))))
	}
	if len(names) > 0 {
		row(names)
		row(rules)
	}
	for oneLine := strings.NewReplacer("\n", `\n`, "\t", `\t`); result.NextRow(); {
		cells := make([]string, len(names))
		for i, value := range result.Values() {
			if cells[i] = oneLine.Replace(string(value)); value == nil {
				cells[i] = "NULL"
			}
		}
		row(cells)
	}
	_ = table.Flush()
	if tag, err := result.Close(); err == nil {
		_, _ = fmt.Fprintln(out, tag)
	}
}
