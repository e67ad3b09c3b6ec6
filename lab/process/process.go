// Package process starts the programs of the lab. None of them outlives the program that started it, however that one ends.
package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Config says what to start. Program and Output are required.
type Config struct {
	Program string
	Args    []string
	Env     []string // the whole environment
	// Output gets what it writes. An *os.File becomes the program's own output. Anything else is written to through a pipe, and has all of it
	// when the process is Done.
	Output io.Writer
	// Inherited is a file that the process has as descriptor 4. A socket stays open while the process is away, so that clients wait for
	// the next one and nobody else takes the port.
	Inherited *os.File
	// Attr is whom it runs as. With nil that is the user of its owner.
	Attr *syscall.SysProcAttr
	// Orphaned are the shell commands that end process $$ when its owner is gone. By default SIGKILL ends it.
	Orphaned string
}

// Process is a running program.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended, valid after done is closed
}

// watchdog becomes the program, so that the program is our child and we can read its exit status. Before that it leaves a process behind
// that reads descriptor 3. A line means that we saw the program end. The end of the file means that its owner is gone, for whatever reason,
// and the program must end too. That process is a grandchild, because PostgreSQL takes the death of a child that it does not know for a
// crash of its own.
const watchdog = `( ( read -r line <&3 && exit
%s
) >/dev/null 2>&1 4<&- & )
exec "$@" 3<&-`

// Start starts it.
func Start(c Config) (*Process, error) {
	watched, life, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Program, err)
	}
	script := fmt.Sprintf(watchdog, cmp.Or(c.Orphaned, "kill -KILL $$"))
	cmd := exec.CommandContext(context.Background(), "/bin/sh", append([]string{"-c", script, "sh", c.Program}, c.Args...)...)
	cmd.Env = c.Env
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	cmd.ExtraFiles = []*os.File{watched}
	if c.Inherited != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Inherited)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if c.Attr != nil {
		*cmd.SysProcAttr = *c.Attr
	}
	cmd.SysProcAttr.Setsid = true // Ctrl-C is its owner's to pass on, in its order
	err = cmd.Start()
	_ = watched.Close()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Program, errors.Join(err, life.Close()))
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		_, _ = io.WriteString(life, "ended\n")
		_ = life.Close()
		close(p.done)
	}()
	return p, nil
}

// PID is the program's. The shell that starts it becomes it.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how it ended, nil for exit code 0. Call it after Done.
func (p *Process) Err() error { return p.err }

// Killed reports whether SIGKILL ended it. Call it after Done.
func (p *Process) Killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Signal sends a signal. A process that has ended already gets none, which is no error.
func (p *Process) Signal(s os.Signal) {
	_ = p.cmd.Process.Signal(s)
}

// Stop lets it end by SIGTERM, and by SIGKILL when patience is over or ctx ends. It returns when the process is gone.
func (p *Process) Stop(ctx context.Context, patience time.Duration) {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	p.Signal(os.Kill)
	<-p.done
}

// CPU is the time that it took. Call it after Done.
func (p *Process) CPU() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}
