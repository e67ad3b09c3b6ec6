// Program generate makes what is derived from the contracts, for `make generate`.
//
// In: contracts/*.json, and for the description of the bus the stack and an example of each event. Out: in the folder that it is given,
// eventtypes/eventtypes.go and asyncapi.yaml.
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
	if err := generate(".", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generate reads the repository at root and writes into the folder to.
func generate(root, to string) error {
	contracts, err := readContracts(filepath.Join(root, "contracts"))
	if err != nil {
		return err
	}
	source, err := eventTypes(contracts)
	if err != nil {
		return fmt.Errorf("generating eventtypes: %w", err)
	}
	if err := write(filepath.Join(to, "eventtypes", "eventtypes.go"), source); err != nil {
		return err
	}
	description, err := describeBus(root, contracts)
	if err != nil {
		return fmt.Errorf("generating asyncapi.yaml: %w", err)
	}
	return write(filepath.Join(to, "asyncapi.yaml"), description)
}

func write(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
