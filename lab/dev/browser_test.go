package dev

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

func TestFilesAreNoTerminals(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	defer writer.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	for _, out := range []*os.File{file, writer, null} {
		require.False(t, isTerminal(out), out.Name())
	}
}

func TestOpenIsQuietAboutAMissingBrowser(t *testing.T) {
	t.Parallel()
	Open("no-such-browser", "http://127.0.0.1:1")
	dir := t.TempDir()
	program := filepath.Join(dir, "browser")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho \"$1\" > "+dir+"/opened\necho noise; exit 1\n"), 0o700))
	Open(program, "http://127.0.0.1:3001")
	labtest.Eventually(t, "the page to be opened", func() bool {
		content, _ := os.ReadFile(filepath.Join(dir, "opened"))
		return string(content) == "http://127.0.0.1:3001\n"
	})
}
