// Command sbom writes the bill of materials of the repository (CycloneDX, JSON).
//
// In: the sources of the programs that are deployed or installed, and npm lock files as arguments.
// Out: bin/sbom/rds-outbox-demo.cdx.json. A Go module is in it if one of the programs has a package
// of it. npm packages run on no server. They are tools of the deployment, of the lab and of the
// tests, so their scope is excluded.
//
// The image of walrelay and each archive of a release have bills of their own, which are read from
// their binaries.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"rds-outbox-demo/infra/bill"
)

// programs are where the main packages are.
var programs = []string{"./handlers/...", "./migrate/...", "./walrelay/...", "./outboxctl/..."}

func main() {
	if err := run(context.Background(), filepath.Join("bin", "sbom"), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, locks []string) error {
	components, err := goModules(ctx)
	if err != nil {
		return err
	}
	for _, lock := range locks {
		packages, err := npmPackages(lock)
		if err != nil {
			return err
		}
		components = append(components, packages...)
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		return err
	}
	subject := cdx.Component{BOMRef: "rds-outbox-demo", Type: cdx.ComponentTypeApplication, Name: "rds-outbox-demo"}
	return bill.Write(filepath.Join(out, "rds-outbox-demo.cdx.json"), subject, components)
}

// goModules returns the modules that the deployed programs are made of, and Go's own library.
func goModules(ctx context.Context) ([]cdx.Component, error) {
	mains, err := list(ctx, append([]string{"-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`}, programs...)...)
	if err != nil {
		return nil, err
	}
	modules, err := list(ctx, append([]string{"-deps", "-f", `{{with .Module}}{{with .Replace}}{{.Path}} {{.Version}}{{else}}{{.Path}} {{.Version}}{{end}}{{end}}`}, mains...)...)
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("asking for the version of Go: %w", err)
	}
	components := []cdx.Component{bill.GoModule("stdlib", strings.TrimSpace(string(version)))}
	for _, line := range modules {
		if path, version, ok := strings.Cut(line, " "); ok && version != "" { // our own module has no version
			components = append(components, bill.GoModule(path, version))
		}
	}
	return components, nil
}

// list returns the lines of go list for the functions' platform. The programs of a release have the same modules.
func list(ctx context.Context, arguments ...string) ([]string, error) {
	command := exec.CommandContext(ctx, "go", append([]string{"list"}, arguments...)...) //nolint:gosec // arguments are from this file
	command.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return strings.FieldsFunc(string(output), func(r rune) bool { return r == '\n' }), nil
}

// npmPackages returns the packages of a lock file of version 3.
func npmPackages(lock string) ([]cdx.Component, error) {
	text, err := os.ReadFile(lock) //nolint:gosec // the caller named it
	if err != nil {
		return nil, err
	}
	var file struct {
		Packages map[string]struct{ Version, License string }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("reading %s: %w", lock, err)
	}
	var components []cdx.Component
	for place, p := range file.Packages {
		_, name, installed := strings.Cut(place, "node_modules/")
		if !installed {
			continue // the package that the lock file belongs to
		}
		if last := strings.LastIndex(name, "node_modules/"); last >= 0 {
			name = name[last+len("node_modules/"):]
		}
		url := "pkg:npm/" + strings.Replace(name, "@", "%40", 1) + "@" + p.Version
		component := cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: name, Version: p.Version, PackageURL: url, Scope: cdx.ScopeExcluded}
		if p.License != "" {
			component.Licenses = &cdx.Licenses{{License: &cdx.License{Name: p.License}}}
		}
		components = append(components, component)
	}
	return components, nil
}
