//go:build !linux

package postgres

// namespaceAccount returns false, because only Linux has user namespaces.
func namespaceAccount() (account, bool) { return account{}, false }
