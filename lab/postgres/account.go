package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is whom the server's processes run as. initdb and postgres refuse to run as root.
type account struct {
	name     string
	attr     syscall.SysProcAttr
	uid, gid int // owner that its files need, as seen from here; -1: whoever made them
}

// accounts returns the ways to run the server, best first. Whether one works is found out by trying it.
func accounts() []account {
	if os.Geteuid() != 0 {
		return []account{{name: "the current user", uid: -1, gid: -1}}
	}
	var found []account
	if inside, ok := namespaceAccount(); ok {
		found = append(found, inside)
	}
	if nobody, err := user.Lookup("nobody"); err == nil {
		uid, uidErr := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(nobody.Gid, 10, 32)
		if uidErr == nil && gidErr == nil {
			found = append(found, account{
				name: "user nobody",
				attr: syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}},
				uid:  int(uid), gid: int(gid),
			})
		}
	}
	return found
}

// environment holds only what the server's programs need, because an inherited PGPORT or
// LD_LIBRARY_PATH would change what they do. macOS' postgres refuses to start without a valid LC_ALL.
var environment = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}

// command prepares a program of the server's.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment
	attr := a.attr
	cmd.SysProcAttr = &attr
	return cmd
}

// own hands everything in dir to the account.
func (a account) own(dir string) error {
	if a.uid < 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// chooseAccount returns the first of them that can reach dir and run postgres, and what `postgres --version` says.
func chooseAccount(ctx context.Context, of []account, dir, binaries string) (account, string, error) {
	postgres := filepath.Join(binaries, "bin", "postgres")
	var failures []error
	for _, a := range of {
		version, err := a.try(ctx, dir, postgres)
		if err == nil {
			return a, version, nil
		}
		failures = append(failures, fmt.Errorf("as %s: %w", a.name, err))
	}
	err := fmt.Errorf("running %s: %w", postgres, errors.Join(failures...))
	if os.Geteuid() == 0 {
		err = fmt.Errorf("%w\nPostgreSQL does not run as root: start as an ordinary user, or where user namespaces are allowed", err)
	}
	return account{}, "", err
}

func (a account) try(ctx context.Context, dir, postgres string) (string, error) {
	if err := a.own(dir); err != nil {
		return "", err
	}
	out, err := a.command(ctx, "/bin/sh", "-c", `cd "$1" && exec "$2" --version`, "sh", dir, postgres).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
