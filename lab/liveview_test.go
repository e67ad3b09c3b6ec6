package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

var viewAddress = regexp.MustCompile(`(?m)^The live view: http://(127\.0\.0\.1:\d+)$`)

// The view is on the port after the API's, and the output says so. If that port is taken, the view
// is on another. A pipe gets lines and nothing else.
func TestLiveViewIsBesideTheAPI(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	// A browser that would be opened, if this were a terminal.
	browser := filepath.Join(t.TempDir(), "xdg-open")
	require.NoError(t, os.WriteFile(browser, []byte("#!/bin/sh\ntouch "+browser+".opened\n"), 0o700))
	environment := []string{"DISPLAY=:99", "CI=", "PATH=" + filepath.Dir(browser) + ":" + os.Getenv("PATH")}
	port := labtest.TwoPorts(t)
	d := startDev(t, dir, append(environment, fmt.Sprintf("PORT=%d", port))...)
	require.Contains(t, d.url, strconv.Itoa(port))
	found := viewAddress.FindStringSubmatch(d.printed())
	require.NotNil(t, found, d.printed())
	require.Equal(t, fmt.Sprintf("127.0.0.1:%d", port+1), found[1])
	response, err := http.Get("http://" + found[1] + "/meta")
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, string(content), `"apiUrl":"`+d.url+`"`)
	d.post(t, 3)
	labtest.Eventually(t, "their lines", func() bool { return strings.Count(d.printed(), "CarCreated  ") == 3 })
	for _, line := range strings.Split(d.printed(), "\n") {
		require.NotContains(t, line, "\x1b")
		require.NotContains(t, line, "\r")
	}
	require.NoFileExists(t, browser+".opened")

	taken := labtest.TwoPorts(t)
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", taken+1))
	require.NoError(t, err)
	defer other.Close()
	d = startDev(t, newFolder(t), fmt.Sprintf("PORT=%d", taken))
	found = viewAddress.FindStringSubmatch(d.printed())
	require.NotNil(t, found, d.printed())
	require.NotEqual(t, fmt.Sprintf("127.0.0.1:%d", taken+1), found[1])
}

// Where there is a terminal and a screen, the live view opens in a browser. TestWhoGetsABrowser has
// the other cases.
func TestTerminalOpensABrowser(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		labtest.Missing(t, fmt.Errorf("script, which makes a terminal, is absent: %w", err))
	}
	browsers := t.TempDir()
	opened := filepath.Join(browsers, "opened")
	require.NoError(t, os.WriteFile(filepath.Join(browsers, "xdg-open"), []byte("#!/bin/sh\necho \"$1\" >> "+opened+"\n"), 0o700))
	require.NoError(t, os.WriteFile(opened, nil, 0o600))
	cmd := lab(t, newFolder(t), []string{"CI=", "DISPLAY=:99", "PORT=0", "PATH=" + browsers + ":" + os.Getenv("PATH"), "SHELL=/bin/sh"}, "dev")
	cmd.Args = []string{"script", "-qefc", "exec " + filepath.Join(programs(t), "lab") + " dev", "/dev/null"}
	cmd.Path = script
	terminal, err := cmd.StdinPipe() // Ctrl-C is a character of it
	require.NoError(t, err)
	printed := labtest.NewLog(t)
	cmd.Stdout, cmd.Stderr = printed, printed
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := sync.OnceFunc(func() {
		_, _ = terminal.Write([]byte{3})
		require.NoError(t, <-ended)
		require.Contains(t, printed.String(), "stopping")
	})
	defer stop()
	labtest.Eventually(t, "the path", func() bool { return strings.Contains(printed.String(), "One line per event") })
	require.NotContains(t, printed.String(), "\x1b")
	found := regexp.MustCompile(`The live view: (\S+)`).FindStringSubmatch(printed.String())
	require.NotNil(t, found)
	labtest.Eventually(t, "the browser", func() bool {
		content, err := os.ReadFile(opened)
		require.NoError(t, err)
		return string(content) == found[1]+"\n"
	})
	stop()
}
