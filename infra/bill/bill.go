// Package bill writes bills of materials.
package bill

import (
	"debug/buildinfo"
	"errors"
	"maps"
	"os"
	"slices"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// Write writes subject's bill of materials (CycloneDX, JSON). A component that is given more than
// once is in it once. The bill has no time and no serial number, so that the same components give
// the same bill.
func Write(path string, subject cdx.Component, components []cdx.Component) (err error) {
	byURL := map[string]cdx.Component{} // the package URL is unique in a bill
	for _, component := range components {
		byURL[component.PackageURL] = component
	}
	sorted := []cdx.Component{}
	for _, url := range slices.Sorted(maps.Keys(byURL)) {
		sorted = append(sorted, byURL[url])
	}
	bill := cdx.NewBOM()
	bill.Metadata = &cdx.Metadata{Component: &subject}
	bill.Components = &sorted
	file, err := os.Create(path) //nolint:gosec // in the folder that the caller named
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return cdx.NewBOMEncoder(file, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bill)
}

// OfBinaries returns the components that are written in the programs themselves, which are their
// modules and Go's own library.
func OfBinaries(binaries ...string) (components []cdx.Component, err error) {
	for _, binary := range binaries {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		components = append(components, GoModule("stdlib", info.GoVersion))
		for _, dependency := range info.Deps {
			if dependency.Replace != nil {
				dependency = dependency.Replace
			}
			components = append(components, GoModule(dependency.Path, dependency.Version))
		}
	}
	return components, nil
}

// GoModule returns the component of a Go module.
func GoModule(path, version string) cdx.Component {
	url := "pkg:golang/" + path + "@" + version
	return cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: url}
}
