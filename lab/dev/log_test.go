package dev

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func TestScreenIsNotFlooded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	log := slog.New(newRateLimited(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))).With("hop", 1)
	for range 500 {
		log.Warn("request")
	}
	printed := func() string {
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
	require.Equal(t, maxLinesASecond, strings.Count(printed(), "msg=request hop=1"))
	labtest.Eventually(t, "the rest to be told", func() bool { return strings.Contains(printed(), "left_out=490") })
	log.Warn("request")
	require.Equal(t, maxLinesASecond+1, strings.Count(printed(), "msg=request"))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
