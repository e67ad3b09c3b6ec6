package chaos

import (
	"fmt"
	"io"
	"time"
)

// showEvery is how often a round, which takes half a minute, says that it moves.
const showEvery = 5 * time.Second

// show prints a line every showEvery until the function that it returns is called.
func (r *round) show(out io.Writer, name string, faults int) (stop func()) {
	began, end, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticks := time.NewTicker(showEvery)
		defer ticks.Stop()
		for {
			select {
			case <-end:
				return
			case <-ticks.C:
			}
			struck := 0
			r.history.add(func() { struck = len(r.history.known.Windows) })
			fmt.Fprintf(out, "%s: %d of %d faults have struck, %d s\n", name, struck, faults, int(time.Since(began).Seconds()))
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
