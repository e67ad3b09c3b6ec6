// Package private makes folders that only their owner can read, and that one process at a time owns.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder makes the folder if there is none. It takes the rights of everybody but the owner from what is in it, whoever made it, so that
// the passwords and payloads of an older version are private too. PostgreSQL's own folder, data, is left alone. It is private from the
// start, and is in use by a server that may still run.
func Folder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another program has just removed it
		}
		if err != nil {
			return err
		}
		if path == filepath.Join(dir, "data") {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Perm()&0o077 == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if !entry.IsDir() && !info.Mode().IsRegular() {
			return nil
		}
		if err := os.Chmod(path, info.Mode().Perm()&0o700); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("making the data folder private: %w", err)
	}
	return nil
}
