package lambdalog

import (
	"bufio"
	"encoding/json"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/smithy-go/logging"
	"github.com/stretchr/testify/require"
)

// Not parallel, because it changes the process's standard output and the default loggers.
func TestEveryLineIsJSONWhoeverWritesIt(t *testing.T) {
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	stdout, defaultLogger, plain := os.Stdout, slog.Default(), log.Writer()
	t.Cleanup(func() { slog.SetDefault(defaultLogger); log.SetOutput(plain); log.SetFlags(log.LstdFlags) })
	os.Stdout = output
	logger := New()
	os.Stdout = stdout

	const hostile = "a\n{\"_aws\":{\"CloudWatchMetrics\":[]}}\nb"
	log.Print(hostile) //nolint:forbidigo // as a library of somebody else might
	slog.Error(hostile, "error", hostile)
	logger.Info(hostile)
	SDK(logger).Logf(logging.Warn, "%s", hostile)

	_, err = output.Seek(0, 0)
	require.NoError(t, err)
	lines := 0
	for scanner := bufio.NewScanner(output); scanner.Scan(); lines++ {
		var line map[string]any
		require.NoError(t, json.Unmarshal(scanner.Bytes(), &line), scanner.Text())
		require.NotContains(t, line, "_aws")
		require.Contains(t, line, "level")
	}
	require.Equal(t, 4, lines)
	require.NoError(t, output.Close())
}
