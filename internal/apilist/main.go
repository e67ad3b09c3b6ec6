// Command apilist keeps the API of the packages that other modules import. Each has a file testdata/api.txt with a line for everything
// exported, as Go has for its own library (https://go.dev/api). walrelay is not among them, because its Config has a type of internal/.
// The generated packages follow contracts and migrations, which have rules of their own.
//
// In: -write, or nothing. Out: with -write, lines are added. A line that no longer holds is an incompatible change. It fails, and names
// the symbol, until somebody deletes the line by hand. Without -write a line that is not there yet fails, too.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/importer"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// packages that other modules import, as folders of the module.
var packages = []string{"inbox", "outbox"}

func main() {
	write := flag.Bool("write", false, "add what is new")
	flag.Parse()
	if err := run(*write, packages); err != nil {
		fmt.Fprintln(os.Stderr, "apilist:", err)
		os.Exit(1)
	}
}

func run(write bool, packages []string) error {
	module, lists, err := load(packages)
	if err != nil {
		return err
	}
	var failures []error
	for _, folder := range packages {
		path := filepath.Join(folder, "testdata", "api.txt")
		text, err := os.ReadFile(path) //nolint:gosec // a package of ours
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		gone, added := compare(strings.Split(strings.TrimSpace(string(text)), "\n"), lists[module+"/"+folder])
		for _, line := range gone {
			failures = append(failures, fmt.Errorf("%s: incompatible: %q is gone or has changed; if you mean it, delete its line from %s and tell CHANGELOG.md",
				folder, line, path))
		}
		switch {
		case len(gone) > 0 || len(added) == 0:
		case write:
			if err := os.WriteFile(path, []byte(strings.Join(lists[module+"/"+folder], "\n")+"\n"), 0o600); err != nil {
				return err
			}
		default:
			failures = append(failures, fmt.Errorf("%s: new: run make generate, which adds %q", folder, added))
		}
	}
	return errors.Join(failures...)
}

// compare returns the kept lines that do not hold any more, and those that are new. The order does not matter.
func compare(kept, now []string) (gone, added []string) {
	for _, line := range kept {
		if line != "" && !slices.Contains(now, line) {
			gone = append(gone, line)
		}
	}
	for _, line := range now {
		if !slices.Contains(kept, line) {
			added = append(added, line)
		}
	}
	return gone, added
}

// load returns the module's path and the lines of each package by its path. It reads what the compiler wrote, which is in the build
// cache after a build.
func load(packages []string) (module string, lists map[string][]string, err error) {
	exported := map[string]string{}
	arguments := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}} {{with .Module}}{{if .Main}}{{.Path}}{{end}}{{end}}"}
	for _, folder := range packages {
		arguments = append(arguments, "./"+folder)
	}
	command := exec.Command("go", arguments...) //nolint:gosec,noctx // packages of ours
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", nil, fmt.Errorf("listing the packages: %w", err)
	}
	for line := range bytes.Lines(out) {
		fields := strings.Split(strings.TrimSuffix(string(line), "\n"), " ")
		exported[fields[0]] = fields[1]
		if fields[2] != "" {
			module = fields[2]
		}
	}
	compiled := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exported[path]) })
	lists = map[string][]string{}
	for _, folder := range packages {
		path := module + "/" + folder
		pkg, err := compiled.Import(path)
		if err != nil {
			return "", nil, fmt.Errorf("reading %s: %w", path, err)
		}
		lists[path] = list(pkg, module)
	}
	return module, lists, nil
}
