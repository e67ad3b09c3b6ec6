package dev

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dev.log")
	require.NoError(t, os.WriteFile(path, []byte("of the run before\n"), 0o600))
	l, err := openLog(path)
	require.NoError(t, err)
	before, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, "of the run before\n", string(before))
	l.max = 100
	for i := range 20 {
		_, err := fmt.Fprintf(l, "line %02d ..........\n", i) // 19 bytes
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	before, err = os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(before), "line 10 ") && strings.HasPrefix(string(now), "line 15 ") && strings.Contains(string(now), "line 19 "))
	_, err = l.Write([]byte("x"))
	require.Error(t, err, "the log must not fail in silence")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

func TestScreenIsNotFlooded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	log := slog.New(newCalm(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
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
	require.Equal(t, calmLines, strings.Count(printed(), "msg=request hop=1"))
	labtest.Eventually(t, "the rest to be told", func() bool { return strings.Contains(printed(), "left_out=490") })
	log.Warn("request")
	require.Equal(t, calmLines+1, strings.Count(printed(), "msg=request"))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
