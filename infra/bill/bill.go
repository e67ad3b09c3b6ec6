// Package bill writes the bill of materials of Go programs.
package bill

import (
	"debug/buildinfo"
	"errors"
	"maps"
	"os"
	"slices"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// Write writes subject's bill of materials (CycloneDX, JSON). It lists what the programs themselves tell, which are their modules
// and Go's own library. It has no time and no serial number, so that the same programs have the same bill.
func Write(path string, subject cdx.Component, binaries ...string) (err error) {
	modules := map[string]cdx.Component{} // by package URL, which is unique in a bill
	for _, binary := range binaries {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return err
		}
		library := module("stdlib", info.GoVersion)
		modules[library.BOMRef] = library
		for _, dependency := range info.Deps {
			if dependency.Replace != nil {
				dependency = dependency.Replace
			}
			m := module(dependency.Path, dependency.Version)
			modules[m.BOMRef] = m
		}
	}
	components := []cdx.Component{}
	for _, url := range slices.Sorted(maps.Keys(modules)) {
		components = append(components, modules[url])
	}
	bill := cdx.NewBOM()
	bill.Metadata = &cdx.Metadata{Component: &subject}
	bill.Components = &components
	file, err := os.Create(path) //nolint:gosec // in the folder that the caller named
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return cdx.NewBOMEncoder(file, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bill)
}

func module(path, version string) cdx.Component {
	url := "pkg:golang/" + path + "@" + version
	return cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: url}
}
