package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// SupervisorConfig says what to keep running. Program, Log, RestartDelay, Patience and Ended are required; Output is not to be set.
type SupervisorConfig struct {
	Config
	Name string // in errors
	// Log is the file that gets what the processes write, a Log. Each Start after a Stop begins a new one, and keeps the old one as <Log>.1.
	Log string
	// Said is called with each line that they write. It must not wait for anything, nor keep the line. May be nil.
	Said         func(line []byte)
	RestartDelay time.Duration // between an end and the next start, so that a program that ends at once does not spin
	Patience     time.Duration // how long Stop waits for an end by SIGTERM
	Ended        func(error)   // called with the reason, never nil, of each end after which the program is started again
	// MaxEnds is how often in a row the program may end within Soon after its start, or at any time before it worked. The supervisor then
	// gives it up, because a person is needed. With 0 it never gives up.
	MaxEnds int
	Soon    time.Duration
	// Worked is called once for each process that has ended, and reports whether it had begun its work. On a busy machine a program that
	// cannot work may need more than Soon to find that out. With nil each has worked.
	Worked   func() bool
	Forgiven func() bool // while it returns true, no end counts for MaxEnds. With nil each end counts
	GaveUp   func(ends int, err error)
}

// ErrNotKilled means that the process ended by itself before SIGKILL reached it.
var ErrNotKilled = errors.New("it ended by itself")

// ErrDown means that there is no process, and that none will be started before the next Start.
var ErrDown = errors.New("it is down")

// Supervisor keeps a program running. It starts the program again whenever it ends, until TakeDown or Stop. All methods may be called at the
// same time.
type Supervisor struct {
	config SupervisorConfig

	mu      sync.Mutex
	want    want
	looping bool          // a goroutine keeps the program running
	output  *Log          // nil before the first Start and after Stop
	current *Process      // nil while there is no process
	changed chan struct{} // closed and replaced when any of this changes
	ours    *Process      // the process that we killed last
	hits    int
	starts  int
	ends    int // in a row, each soon after its start
}

// want is what is to become of the program.
type want int

const (
	down want = iota // its log is closed
	held             // it is down for a while, and its log goes on
	up
)

// NewSupervisor starts nothing yet.
func NewSupervisor(c SupervisorConfig) *Supervisor {
	return &Supervisor{config: c, changed: make(chan struct{})}
}

// Start lets the program run until TakeDown or Stop. It does nothing when the program is to run already.
func (s *Supervisor) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want == up {
		return nil
	}
	if s.output == nil {
		output, err := OpenLog(s.config.Log)
		if err != nil {
			return fmt.Errorf("starting %s: %w", s.config.Name, err)
		}
		output.said = s.config.Said
		s.output = output
	}
	s.want, s.ends = up, 0
	if !s.looping {
		s.looping = true
		go s.keepRunning()
	}
	s.notify()
	return nil
}

func (s *Supervisor) keepRunning() {
	for {
		started := time.Now()
		p, err := s.startOnce()
		if p == nil && err == nil {
			return
		}
		if err == nil {
			<-p.Done()
			if err = p.Err(); err == nil {
				err = errors.New("exit status 0")
			}
		}
		switch again, ends := s.ended(p, time.Since(started) > s.config.Soon); {
		case !again:
		case s.config.MaxEnds > 0 && ends >= s.config.MaxEnds:
			s.set(func() { s.want = down })
			s.config.GaveUp(ends, err)
		default:
			s.config.Ended(err)
			s.rest()
		}
	}
}

// startOnce starts a process. It returns nil and no error when none is wanted any more, and the loop has to end.
func (s *Supervisor) startOnce() (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notify()
	if s.want != up {
		s.looping = false
		s.closeLog()
		return nil, nil
	}
	config := s.config.Config
	config.Output = s.output
	// The lock is held, because a Stop meanwhile would find no process, and leave this one running.
	p, err := Start(config)
	if err == nil {
		s.current = p
		s.starts++
	}
	return p, err
}

// ended notes the end of p, which is nil if it could not be started, and reports whether the program is to be started again.
func (s *Supervisor) ended(p *Process, lived bool) (again bool, ends int) {
	forgiven := s.config.Forgiven != nil && s.config.Forgiven()
	worked := s.config.Worked == nil || s.config.Worked()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notify()
	s.current = nil
	if p != nil && p.Killed() && p != s.ours {
		s.hits++
	}
	if lived && worked {
		s.ends = 0
	}
	if s.ends++; forgiven {
		s.ends = 0
	}
	return s.want == up, s.ends
}

// rest waits for the next start, or until the program is no longer to run.
func (s *Supervisor) rest() {
	timer := time.NewTimer(s.config.RestartDelay)
	defer timer.Stop()
	for {
		s.mu.Lock()
		want, changed := s.want, s.changed
		s.mu.Unlock()
		if want != up {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		}
	}
}

// notify wakes whoever waits for a change. The lock is held.
func (s *Supervisor) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Supervisor) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.notify()
}

// closeLog closes the log of a program that is not held. The lock is held.
func (s *Supervisor) closeLog() {
	if s.want == down && !s.looping && s.output != nil {
		_ = s.output.Close()
		s.output = nil
	}
}

// await waits until condition, which is called with the lock held, is true.
func (s *Supervisor) await(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		done, changed := condition(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", s.config.Name, ctx.Err())
		}
	}
}

// Process returns the process. It waits while the program is just being started again; ErrDown when nobody starts it.
func (s *Supervisor) Process(ctx context.Context) (p *Process, err error) {
	err = s.await(ctx, func() bool {
		p = s.current
		return p != nil || s.want != up
	})
	if err == nil && p == nil {
		err = fmt.Errorf("%s: %w", s.config.Name, ErrDown)
	}
	return p, err
}

// Kill ends the process with SIGKILL; the next one is started as after any other end. ErrNotKilled when it was not that which ended it.
func (s *Supervisor) Kill(ctx context.Context) error { return s.kill(ctx, up) }

// TakeDown ends the process with SIGKILL, and the program stays down until Start, whatever is returned. ErrNotKilled when it was not
// that which ended the process.
func (s *Supervisor) TakeDown(ctx context.Context) error { return s.kill(ctx, held) }

func (s *Supervisor) kill(ctx context.Context, next want) error {
	p, err := s.Process(ctx)
	if err != nil {
		return err
	}
	s.set(func() {
		if s.current != p { // it has ended since, and the next one must not live on
			p = s.current
		}
		if s.want == up {
			s.want = next
		}
		s.ours = p
	})
	if p == nil {
		return fmt.Errorf("killing %s: %w", s.config.Name, ErrNotKilled)
	}
	p.Signal(os.Kill)
	// The supervisor has to have seen the end, too. The next kill must not take a dead process for a running one.
	if err := s.await(ctx, func() bool { return s.current != p }); err != nil {
		return err
	}
	if !p.Killed() {
		return fmt.Errorf("killing %s: %w", s.config.Name, errors.Join(ErrNotKilled, p.Err()))
	}
	return nil
}

// Stop ends the process by SIGTERM, and by SIGKILL when Patience is over or ctx ends. The program stays down until Start.
func (s *Supervisor) Stop(ctx context.Context) error {
	var p *Process
	s.set(func() {
		s.want = down
		p = s.current
		s.closeLog()
	})
	if p != nil {
		p.Signal(syscall.SIGCONT) // a frozen one could not end
		p.Stop(ctx, s.config.Patience)
	}
	// The process is gone, and so the loop ends. ctx may have ended before that, and would make an error of it.
	return s.await(context.WithoutCancel(ctx), func() bool { return !s.looping })
}

// Wanted reports whether the program is to run. It runs, or will in a moment.
func (s *Supervisor) Wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want == up
}

// Starts is how many processes were started.
func (s *Supervisor) Starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// Hits returns how many processes were ended by a SIGKILL that did not come from here, but from a failpoint.
func (s *Supervisor) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

// LastLine returns what the processes wrote last since Start, or that it was nothing.
func (s *Supervisor) LastLine() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.output == nil {
		return "its log is closed"
	}
	return cmp.Or(strings.TrimSpace(s.output.LastLine()), "it said nothing")
}

// Log is the path of the log.
func (s *Supervisor) Log() string { return s.config.Log }
