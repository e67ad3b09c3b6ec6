//go:build !sabotage

package sabotage

// Enabled tells whether this build can be sabotaged.
const Enabled = false

// On is false in a release build.
func On(Rule) bool { return false }
