package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// standbyTimeout bounds the copy of a primary's data. A lab's data is about 50 MB.
const standbyTimeout = startTimeout

// StartStandby makes cfg.Dir a standby of primary with a copy of its data, and starts it. The standby streams through the physical
// slot of that name, which is made for it and is its application_name, and keeps the primary's failover slots synchronized where the version has them (PostgreSQL
// 17 and later). cfg.Dir must be empty, and the server at least version 15.
func StartStandby(ctx context.Context, cfg Config, primary *Server, slot string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, standbyTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, primary.URL())
	if err != nil {
		return nil, fmt.Errorf("making a standby: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := copyPrimary(ctx, conn, cfg.Dir, slot); err != nil {
		return nil, fmt.Errorf("making a standby: %w", err)
	}
	// In a file, because a command line would show the password. A later line wins over one that came with the copy. The worker that
	// synchronizes the slots logs in to the database that the URL names.
	settings := fmt.Sprintf("primary_conninfo = '%s&application_name=%[2]s'\nprimary_slot_name = '%[2]s'\nhot_standby_feedback = on\n", primary.URL(), slot)
	if conn.PgConn().ParameterStatus("server_version") >= "17" {
		settings += "sync_replication_slots = on\n"
	}
	if err := appendFile(filepath.Join(dataDir(cfg.Dir), "postgresql.auto.conf"), settings); err != nil {
		return nil, fmt.Errorf("making a standby: %w", err)
	}
	return Start(ctx, cfg)
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// promotionPatience is how long a standby may take to end its recovery.
const promotionPatience = time.Minute

// Promote makes a standby a primary. It returns when the server takes writes.
func (s *Server) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return fmt.Errorf("promoting the standby: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// A query that waits for the end of the recovery can hold it up. If a row that it might read is to be removed, the recovery waits
	// for it, sees no promotion for max_standby_streaming_delay, and then cancels it.
	if _, err := conn.Exec(ctx, "SELECT pg_promote(wait => false)"); err != nil {
		return fmt.Errorf("promoting the standby: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, promotionPatience)
	defer cancel()
	for recovering := true; recovering; {
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
			return fmt.Errorf("waiting for the promotion: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// copyPrimary copies a running server's data into dir. npm's binaries have no pg_basebackup, so this is the low-level backup of
// PostgreSQL's documentation. The slot is made first, so that the primary keeps the WAL from the copy's beginning on.
func copyPrimary(ctx context.Context, conn *pgx.Conn, dir, slot string) error {
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", slot); err != nil {
		return fmt.Errorf("making slot %s: %w", slot, err)
	}
	var from, label string
	if err := conn.QueryRow(ctx, "SELECT current_setting('data_directory')").Scan(&from); err != nil {
		return fmt.Errorf("asking for the data folder: %w", err)
	}
	if _, err := conn.Exec(ctx, "SELECT pg_backup_start('standby', fast => true)"); err != nil {
		return fmt.Errorf("beginning the backup: %w", err)
	}
	if err := copyData(from, dataDir(dir)); err != nil {
		return fmt.Errorf("copying the data: %w", err)
	}
	if err := conn.QueryRow(ctx, "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").Scan(&label); err != nil {
		return fmt.Errorf("ending the backup: %w", err)
	}
	password, err := os.ReadFile(passwordFile(filepath.Dir(from)))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dataDir(dir), "backup_label"), []byte(label), 0o600),
		os.WriteFile(filepath.Join(dataDir(dir), "standby.signal"), nil, 0o600),
		os.WriteFile(passwordFile(dir), password, 0o600),
	)
}

// emptied are the folders whose content belongs to the primary alone. Its slots would hold back the standby's WAL.
var emptied = []string{"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}

func copyData(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the running server has removed it
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			if err := os.MkdirAll(target, 0o700); err != nil {
				return err
			}
			if slices.Contains(emptied, name) {
				if name == "pg_wal" { // initdb makes its folders, and a start does not
					err = errors.Join(os.Mkdir(filepath.Join(target, "archive_status"), 0o700), os.Mkdir(filepath.Join(target, "summaries"), 0o700))
				}
				if err != nil {
					return err
				}
				return filepath.SkipDir // errors.Join would hide it from WalkDir
			}
			return nil
		case name == "postmaster.pid" || name == "postmaster.opts":
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
}
