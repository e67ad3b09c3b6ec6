package bench

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCreateScript(t *testing.T) {
	t.Parallel()
	script := createScript()
	require.NotRegexp(t, `\$\d`, script, "a parameter without its value")
	require.Equal(t, 2, strings.Count(script, ";\n"))
	require.Contains(t, script, "'0'))::uuid, :make, :model, :year, :color, 1, :created, :created);\n")
	require.Contains(t, script, "::uuid::text, :version, :event, :data, :traceparent);\n\\endpipeline")
	for name := range createValues {
		require.Contains(t, script, ":"+name, "a value that is not used")
	}
}

func TestReadTPS(t *testing.T) {
	t.Parallel()
	for name, output := range map[string]string{
		"14": "latency average = 0.062 ms\ninitial connection time = 4.1 ms\ntps = 16032.125 (without initial connection time)\n",
		"13": "tps = 15000.5 (including connections establishing)\ntps = 16032.125 (excluding connections establishing)\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tps, err := readTPS(output)
			require.NoError(t, err)
			require.InDelta(t, 16032.125, tps, 0)
		})
	}
	_, err := readTPS("pgbench: error: connection failed")
	require.ErrorContains(t, err, "connection failed")
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	answers := bufio.NewReader(strings.NewReader("HTTP/1.1 201 Created\r\nLocation: /cars/1\r\nContent-length: 2\r\n\r\n{}" +
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n" + "HTTP/1.1 200 OK\r\n\r\n" + "HTTP/1.1 2"))
	for _, want := range []int{201, 500} {
		status, err := readAnswer(answers)
		require.NoError(t, err)
		require.Equal(t, want, status)
	}
	_, err := readAnswer(answers)
	require.ErrorContains(t, err, "no Content-Length")
	_, err = readAnswer(answers)
	require.ErrorContains(t, err, "EOF")
}
