package chaos

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/judge"
)

func TestARoundShowsThatItMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := &round{history: &history{}}
		stop := r.show(&out, "round 2 of 5", 16)
		time.Sleep(7 * time.Second)
		r.history.add(func() { r.history.known.Windows = append(r.history.known.Windows, judge.Window{}) })
		time.Sleep(4 * time.Second)
		stop()
		time.Sleep(time.Minute)
		require.Equal(t, "round 2 of 5: 0 of 16 faults have struck, 5 s\nround 2 of 5: 1 of 16 faults have struck, 10 s\n", out.String())
	})
}
