package dev

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

// isTerminal reports whether file is a terminal, so that somebody may read along. Files, pipes and
// /dev/null have no size.
func isTerminal(file *os.File) bool {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return errno == 0
}

// Open shows a page in the user's browser. Where that fails, the page's address is on the screen anyway.
func Open(program, url string) {
	cmd := exec.CommandContext(context.Background(), program, url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
