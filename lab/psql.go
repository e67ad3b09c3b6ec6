package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/lab/postgres"
)

// runPsql runs psql on the local database or on DATABASE_URL. Where psql is not installed it prints the rows of the statements on
// standard input.
func runPsql(ctx context.Context) error {
	databaseURL := os.Getenv("DATABASE_URL")
	if databaseURL == "" {
		var err error
		if databaseURL, err = postgres.FindRunning(filepath.Join(dataDir, "postgres")); err != nil {
			return err
		}
	}
	config, err := pgsession.ParseConfig(databaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	if psql, err := exec.LookPath("psql"); err == nil {
		address, err := url.Parse(databaseURL)
		if err != nil || address.Host == "" {
			return errors.New("DATABASE_URL is not a URL with a host") // url's error repeats it, with the password
		}
		// Every user of the machine can read a command line, so the password is not on it.
		password, _ := address.User.Password()
		address.User = url.User(address.User.Username())
		cmd := exec.Command(psql, address.String()) //nolint:noctx // Ctrl-C ends ctx, but in psql it only cancels a statement
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(os.Environ(), "PGPASSWORD="+password), os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	// A script is told as well, because psql prints its rows in another form.
	fmt.Fprintln(os.Stderr, "psql is not installed. A statement ends with a semicolon at the end of a line, Ctrl-D ends this.")
	done := make(chan error, 1)
	go func() { done <- printRows(ctx, conn.PgConn(), os.Stdin, os.Stdout) }()
	select {
	case err := <-done:
		return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	case <-ctx.Done(): // which does not end a read from a terminal
		return nil
	}
}

// printRows prints the rows of each statement of in. It goes on after a statement that the server refused.
func printRows(ctx context.Context, conn *pgconn.PgConn, in io.Reader, out io.Writer) error {
	statement := ""
	lines := bufio.NewScanner(in)
	for more := true; more; {
		more = lines.Scan()
		statement = strings.TrimSpace(statement + "\n" + lines.Text())
		if statement == "" || more && !strings.HasSuffix(statement, ";") {
			continue
		}
		results, err := conn.Exec(ctx, statement).ReadAll()
		statement = ""
		for _, result := range results {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			for _, column := range result.FieldDescriptions {
				fmt.Fprint(table, column.Name, "\t")
			}
			fmt.Fprintln(table)
			for _, row := range result.Rows {
				for _, value := range row {
					fmt.Fprint(table, strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(string(value)), "\t")
				}
				fmt.Fprintln(table)
			}
			fmt.Fprintln(table, result.CommandTag)
			if err := table.Flush(); err != nil {
				return err
			}
		}
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && !conn.IsClosed() {
			fmt.Fprintln(out, refused)
		} else if err != nil {
			return err
		}
	}
	return lines.Err()
}
