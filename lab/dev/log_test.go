package dev

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The clock is synctest's. On a busy machine the lines may otherwise fall into two seconds.
func TestScreenIsNotFlooded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newRateLimited(slog.NewTextHandler(&out, nil))).With("hop", 1)
		for range 500 {
			log.Warn("request")
		}
		require.Equal(t, maxLinesASecond, strings.Count(out.String(), "msg=request hop=1"))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Contains(t, out.String(), "left_out=490")
		log.Warn("request")
		require.Equal(t, maxLinesASecond+1, strings.Count(out.String(), "msg=request"))
	})
}
