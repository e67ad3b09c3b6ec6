// Program generate makes what is derived from the contracts, for `make generate`.
//
// In: contracts/*.json. Out: in the folder that it is given, eventtypes/eventtypes.go.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate FOLDER, from the root of the repository")
		os.Exit(2)
	}
	if err := generate("contracts", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generate reads the contracts of one folder and writes into another.
func generate(from, to string) error {
	contracts, err := readContracts(from)
	if err != nil {
		return err
	}
	source, err := eventTypes(contracts)
	if err != nil {
		return fmt.Errorf("generating eventtypes: %w", err)
	}
	return write(filepath.Join(to, "eventtypes", "eventtypes.go"), source)
}

func write(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
