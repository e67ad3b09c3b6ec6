// Package postgrestest chooses the PostgreSQL of tests that start a server of their own.
package postgrestest

import (
	"os"

	"rds-outbox-demo/lab/postgres"
)

// EnvBinaries names the folder of the binaries that the test server runs from. `lab with-postgres -throwaway` sets it, so that a
// test's own server has the version of the one that it stands beside.
const EnvBinaries = "TEST_POSTGRES"

// FindBinaries returns the folder in EnvBinaries. Without it, as with a test server of your own, it is the one that
// postgres.FindBinaries finds under root.
func FindBinaries(root string) (string, error) {
	if binaries := os.Getenv(EnvBinaries); binaries != "" {
		return binaries, nil
	}
	return postgres.FindBinaries(root)
}
