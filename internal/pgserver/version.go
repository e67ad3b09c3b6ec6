// Package pgserver says which PostgreSQL servers this project works with. Every program that
// refuses a server uses the same words.
package pgserver

import (
	"fmt"
	"strconv"
)

// MinVersion is the oldest supported major version. PostgreSQL 13 is out of support, and has no setting in_hot_standby, which preflight
// reads.
const MinVersion = 14

// VersionRemedy says what to do about an error of CheckVersion.
const VersionRemedy = "upgrade the server"

// CheckVersion returns an error if the server is older than MinVersion. setting is the server's server_version_num, such as 140023.
func CheckVersion(setting string) error {
	number, err := strconv.Atoi(setting)
	if err != nil {
		return fmt.Errorf("reading server_version_num %q: %w", setting, err)
	}
	if major := number / 10000; major < MinVersion {
		return fmt.Errorf("PostgreSQL %d is not supported: walrelay needs %d or later", major, MinVersion)
	}
	return nil
}
