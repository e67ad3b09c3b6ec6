package private

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

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
