package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// template returns the folder with the data directory and the password that throw-away servers copy.
// It is in the npm package of the binaries, so that an update of theirs removes it.
func template(cfg Config) string { return filepath.Join(filepath.Dir(cfg.Binaries), "initialized") }

// copyOrInitdb makes the data directory of a throw-away server. initdb takes more CPU than the rest of
// a start, so the first server leaves a template for the others. They share its password and its
// system identifier.
func copyOrInitdb(ctx context.Context, cfg Config, as account, version, dir string) (string, error) {
	from := template(cfg)
	if password, err := os.ReadFile(passwordFile(from)); err == nil {
		if err := copyFolder(dir, dataDir(from)); err != nil {
			return "", fmt.Errorf("copying %s (remove it if it is not whole): %w", from, err)
		}
		if err := os.WriteFile(passwordFile(cfg.Dir), password, 0o600); err != nil {
			return "", err
		}
		return string(bytes.TrimSpace(password)), as.own(cfg.Dir)
	}
	password, err := initdb(ctx, cfg, as, version, dir)
	if err == nil {
		leaveTemplate(ctx, cfg, as, dir)
	}
	return password, err
}

// leaveTemplate keeps a copy of a new data directory. Where it cannot, such as in a package of another
// user, the next server runs initdb again.
func leaveTemplate(ctx context.Context, cfg Config, as account, made string) {
	half, err := os.MkdirTemp(filepath.Dir(template(cfg)), "initialized.new-")
	if err != nil {
		return
	}
	defer func() { _ = os.RemoveAll(half) }()
	if err := copyFolder(dataDir(half), made); err != nil {
		return
	}
	password, err := os.ReadFile(passwordFile(cfg.Dir))
	if err != nil || os.WriteFile(passwordFile(half), password, 0o600) != nil || as.own(half) != nil {
		return
	}
	// A machine that loses its power must not leave a template with empty files.
	if as.command(ctx, filepath.Join(cfg.Binaries, "bin", "initdb"), "--sync-only", "-D", dataDir(half)).Run() != nil {
		return
	}
	_ = os.Rename(half, template(cfg)) // another server may have been first
}

// copyFolder copies a folder of files that PostgreSQL wants to be its user's alone.
func copyFolder(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.Chmod(to, 0o700)
}
