package main

import (
	"debug/buildinfo"
	"errors"
	"maps"
	"os"
	"slices"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// writeBill lists what the image is made of, as the programs themselves tell: their modules and Go's own library. It has no time and
// no serial number, so that the same image has the same bill.
func writeBill(path string, digest v1.Hash, files map[string]string) (err error) {
	modules := map[string]cdx.Component{} // by package URL, which is unique in a bill
	for program := range programs {
		info, err := buildinfo.ReadFile(files[program])
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
	bill.Metadata = &cdx.Metadata{Component: &cdx.Component{
		BOMRef: digest.String(), Type: cdx.ComponentTypeContainer, Name: "walrelay", Version: digest.String(),
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: digest.Hex}},
	}}
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
