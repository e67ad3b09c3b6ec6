//go:build !linux

package postgres

// namespaceAccount: only Linux has user namespaces.
func namespaceAccount() (account, bool) { return account{}, false }
