package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A server's folder is locked by the process that owns the server, and holds:
//
//	data/          PostgreSQL's data directory, complete or absent
//	password       of the superuser, mode 0600
//	server.log     of this start, 64 MiB at most; server.log.1 of the start before, or the 64 MiB before
func dataDir(dir string) string      { return filepath.Join(dir, "data") }
func passwordFile(dir string) string { return filepath.Join(dir, "password") }
func logFile(dir string) string      { return filepath.Join(dir, "server.log") }

// prepare makes the data directory if there is none and returns the superuser's password.
func prepare(ctx context.Context, cfg Config, as account, version string) (string, error) {
	if err := removeHalfMade(ctx, cfg.Dir); err != nil {
		return "", err
	}
	made, err := os.ReadFile(filepath.Join(dataDir(cfg.Dir), "PG_VERSION"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return initialize(ctx, cfg, as, major(version))
	case err != nil:
		return "", err
	}
	if has, want := strings.TrimSpace(string(made)), major(version); has != want {
		return "", fmt.Errorf("%s was made by PostgreSQL %s and this is PostgreSQL %s: FRESH=1 throws the old data away and starts anew", cfg.Dir, has, want)
	}
	password, err := os.ReadFile(passwordFile(cfg.Dir))
	if err != nil {
		return "", fmt.Errorf("reading the password of the data in %s (FRESH=1 starts anew): %w", cfg.Dir, err)
	}
	return string(bytes.TrimSpace(password)), nil
}

// initialize makes the data directory beside its final place. A process killed in the middle leaves an initdb that works on for a
// second: with a name of its own for every try, and a rename at the end, it cannot disturb the next one.
func initialize(ctx context.Context, cfg Config, as account, version string) (string, error) {
	half, err := os.MkdirTemp(cfg.Dir, "data.new-")
	if err != nil {
		return "", err
	}
	var password string
	if cfg.Durable {
		password, err = initdb(ctx, cfg, as, version, half)
	} else {
		password, err = copyOrInitdb(ctx, cfg, as, version, half)
	}
	if err != nil {
		return "", err
	}
	if err := narrow(half); err != nil {
		return "", err
	}
	if err := os.Rename(half, dataDir(cfg.Dir)); err != nil {
		return "", fmt.Errorf("putting the new data folder in place (is there another one that is not PostgreSQL's?): %w", err)
	}
	return password, nil
}

func initdb(ctx context.Context, cfg Config, as account, version, dir string) (string, error) {
	password := rand.Text()
	if err := os.WriteFile(passwordFile(cfg.Dir), []byte(password+"\n"), 0o600); err != nil {
		return "", err
	}
	if err := as.own(cfg.Dir); err != nil {
		return "", err
	}
	args := []string{
		"-D", dir, "--username=" + superuser, "--pwfile=" + passwordFile(cfg.Dir), "--auth=scram-sha-256", "--encoding=UTF8",
		// Without a locale of the machine, text sorts and compares the same everywhere.
		"--locale=C", "--no-instructions",
	}
	// Before 17 there is no built-in provider, and upper() then changes ASCII only.
	if !slices.Contains([]string{"14", "15", "16"}, version) {
		args = append(args, "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
	}
	if !cfg.Durable {
		args = append(args, "--no-sync")
	}
	out, err := as.command(ctx, filepath.Join(cfg.Binaries, "bin", "initdb"), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running initdb: %w\n%s", err, lastLines(out, 8))
	}
	return password, nil
}

// narrow refuses a relay's user the physical way to replicate, which copies the whole server, password hashes included. PostgreSQL
// takes the first line that matches. The database is left to the user's own grants, because tests have databases of their own.
func narrow(data string) error {
	const first = "host  replication  +outbox_relay  all  reject\n"
	file := filepath.Join(data, "pg_hba.conf")
	rest, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append([]byte(first), rest...), 0o600)
	}
	if err != nil {
		return fmt.Errorf("narrowing what a relay's user may do: %w", err)
	}
	return nil
}

// removeHalfMade clears what a killed initdb left. It removes nothing else, because a folder called
// data that is not a data directory may hold somebody's files.
func removeHalfMade(ctx context.Context, dir string) error {
	half, err := filepath.Glob(filepath.Join(dir, "data.new-*"))
	if err != nil {
		return err
	}
	for _, path := range half {
		// An initdb that outlived us may still be adding files. It gives up once it misses one.
		for err := os.RemoveAll(path); err != nil; err = os.RemoveAll(path) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("removing a half-made data folder: %w", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// lastLines returns the end of a program's output, for an error.
func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
