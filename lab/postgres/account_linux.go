package postgres

import "syscall"

// namespaceAccount is root under another number. It is a user namespace in which our uid is called
// 1000. Files stay root's, so that a checkout below /root works too.
func namespaceAccount() (account, bool) {
	const inside = 1000
	return account{
		name: "root mapped to another uid in a user namespace",
		attr: syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: 0, Size: 1}},
		},
	}, true
}
