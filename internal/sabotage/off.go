//go:build !sabotage

package sabotage

// Enabled reports whether this build can be sabotaged.
const Enabled = false

// On is false in a release build.
func On(Rule) bool { return false }
