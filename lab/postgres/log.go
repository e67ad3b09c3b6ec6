package postgres

import (
	"errors"
	"io"
	"os"
	"time"
)

const (
	// maxLog is the size of server.log at which it becomes server.log.1.
	maxLog = 64 << 20
	// lookAtLog is how often the size is read. A server that repeats one error writes some MB in that time.
	lookAtLog = 5 * time.Second
)

// boundLog keeps the log small until the server is gone. PostgreSQL's own collector is no way to do it, because log_truncate_on_rotation
// does not count for a rotation by size. The file cannot be renamed, because the server's processes hold it open. So it is copied and
// emptied, and what the server writes in between is lost. A log that cannot be bounded is left alone: no event depends on it.
func boundLog(path string, limit int64, gone <-chan struct{}) {
	for {
		select {
		case <-gone:
			return
		case <-time.After(lookAtLog):
		}
		if info, err := os.Stat(path); err == nil && info.Size() > limit && copyFile(path, path+".1") == nil {
			_ = os.Truncate(path, 0)
		}
	}
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
