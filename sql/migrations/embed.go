// Package migrations carries the goose migrations of this folder. They are the one source of the schema, and sqlc reads the same files.
package migrations

import "embed"

// FS holds the .sql files at its root, as goose.NewProvider expects them.
//
//go:embed *.sql
var FS embed.FS
