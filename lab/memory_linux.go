package main

import "syscall"

// memoryFolder returns a folder in memory, or "" when there is none with enough room. A test's database is about a thousand files. To
// make them on a disk takes most of the time of a test, and none of them has to outlive it.
func memoryFolder() string {
	const (
		folder = "/dev/shm"
		enough = 4 << 30 // bytes. Tests take less than one GB.
		noExec = 8       // ST_NOEXEC. Tests build programs into their folders.
		tmpfs  = 0x01021994
	)
	var fs syscall.Statfs_t
	if syscall.Statfs(folder, &fs) != nil || int64(fs.Type) != tmpfs || fs.Flags&noExec != 0 || fs.Bavail*uint64(fs.Bsize) < enough { //nolint:gosec,unconvert // the types differ between machines
		return ""
	}
	return folder
}
