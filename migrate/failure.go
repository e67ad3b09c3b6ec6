package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// FailedError says which file and statement failed. The files before it stay applied. The failed file
// is rolled back, unless it says NO TRANSACTION.
type FailedError struct {
	File      string
	Direction string // up or down
	// Statement is as in the file. It is empty if the file could not be parsed, or if the connection
	// broke between two statements.
	Statement string
	Before    []Migration
	Err       error
}

func (e *FailedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "migrating %s with %s: %v", e.Direction, e.File, e.Err)
	var refused *pgconn.PgError
	if errors.As(e.Err, &refused) {
		for _, part := range []struct{ name, text string }{{"detail", refused.Detail}, {"hint", refused.Hint}, {"where", refused.Where}} {
			if part.text != "" {
				fmt.Fprintf(&b, "\n%s: %s", part.name, part.text)
			}
		}
	}
	if e.Statement != "" {
		fmt.Fprintf(&b, "\nstatement: %s", shorten(e.Statement))
	}
	before := "nothing"
	if len(e.Before) > 0 {
		var names []string
		for _, m := range e.Before {
			names = append(names, m.File)
		}
		before = strings.Join(names, ", ")
	}
	fmt.Fprintf(&b, "\ndone before it: %s", before)
	return b.String()
}

func (e *FailedError) Unwrap() error { return e.Err }

// shorten keeps the start of a statement, enough to find it in its file.
func shorten(statement string) string {
	const limit = 400
	statement = strings.TrimSpace(statement)
	if runes := []rune(statement); len(runes) > limit {
		return string(runes[:limit]) + " ..."
	}
	return statement
}

// failures remembers every statement that failed, because goose's error does not name it.
type failures struct {
	mu  sync.Mutex
	all []failure
}

type failure struct {
	statement string
	err       error
}

type statementKey struct{}

// TraceQueryStart is pgx's.
func (f *failures) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, data.SQL)
}

// TraceQueryEnd is pgx's.
func (f *failures) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if data.Err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, failure{ctx.Value(statementKey{}).(string), data.Err})
}

// statement returns the text that failed with err, "" if none did.
func (f *failures) statement(err error) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.all {
		if errors.Is(err, one.err) {
			return one.statement
		}
	}
	return ""
}
