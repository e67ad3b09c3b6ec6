package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeOperatorEnv writes where this path is, for outboxctl in another terminal. Only this user may
// read the file, because a password of the database or of AWS may be in it. The file is removed
// with the path.
func writeOperatorEnv(dir string, env []string) (remove func(), err error) {
	path := filepath.Join(dir, "outboxctl.env")
	_ = os.Remove(path) // of a run that was killed; WriteFile would keep its mode
	content := "# The set-up of the `make dev` that runs here, for outboxctl. Made at its start, gone at its end.\n" + strings.Join(env, "\n") + "\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return func() { _ = os.Remove(path) }, nil
}
