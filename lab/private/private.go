// Package private makes folders that only their owner can read, and that one process at a time owns.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
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

// Lock makes this process the only one that owns the folder, until the file is closed. The kernel frees the lock of a process that was
// killed. The lock is the folder's own, so that the content can be removed meanwhile.
func Lock(dir string) (*os.File, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("locking a folder: %w", err)
	}
	// The owner may be about to end, as after Ctrl-C and a new start at once. Or a process that it is just starting still has a copy of the
	// file, until its exec.
	for patience := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return folder, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(patience) {
			_ = folder.Close()
			return nil, fmt.Errorf("another process uses %s: %w", dir, err)
		}
	}
}
