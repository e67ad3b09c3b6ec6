package main_test

import (
	"bytes"
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

// freePorts returns two ports beside each other that nobody has.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		one, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := one.Addr().(*net.TCPAddr).Port
		two, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+1))
		_ = one.Close()
		if err == nil {
			_ = two.Close()
			return port
		}
	}
	t.Fatal("no two free ports beside each other")
	return 0
}

// The view is on the port after the API's, and the output says so. If that port is taken, the view
// is on another. A pipe gets lines and nothing else.
func TestLiveViewIsBesideTheAPI(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	// A browser that would be opened, if this were a terminal.
	browser := filepath.Join(t.TempDir(), "xdg-open")
	require.NoError(t, os.WriteFile(browser, []byte("#!/bin/sh\ntouch "+browser+".opened\n"), 0o700))
	environment := []string{"DISPLAY=:99", "CI=", "PATH=" + filepath.Dir(browser) + ":" + os.Getenv("PATH")}
	port := freePorts(t)
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

	taken := freePorts(t)
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", taken+1))
	require.NoError(t, err)
	defer other.Close()
	d = startDev(t, newFolder(t), fmt.Sprintf("PORT=%d", taken))
	found = viewAddress.FindStringSubmatch(d.printed())
	require.NotNil(t, found, d.printed())
	require.NotEqual(t, fmt.Sprintf("127.0.0.1:%d", taken+1), found[1])
}

// Where there is a terminal and a screen, the live view opens in a browser.
func TestTerminalOpensABrowser(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("script, which makes a terminal, is absent: ", err)
	}
	bin := programs(t)
	browsers := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(browsers, "xdg-open"), []byte("#!/bin/sh\necho \"$1\" >> "+browsers+"/opened\n"), 0o700))
	for name, tc := range map[string]struct {
		env    []string
		opened bool
	}{
		"Screen":     {[]string{"DISPLAY=:99"}, true},
		"Wayland":    {[]string{"WAYLAND_DISPLAY=wayland-0"}, true},
		"NoScreen":   {[]string{"DISPLAY=", "WAYLAND_DISPLAY="}, false},
		"NotWanted":  {[]string{"DISPLAY=:99", "OPEN=0"}, false},
		"Continuous": {[]string{"DISPLAY=:99", "CI=true"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(browsers, "opened"), nil, 0o600))
			environment := append([]string{"CI=", "PORT=0", "PATH=" + browsers + ":" + os.Getenv("PATH")}, tc.env...)
			cmd := lab(t, newFolder(t), environment, "dev")
			cmd.Args = []string{"script", "-qefc", "exec " + filepath.Join(bin, "lab") + " dev", "/dev/null"}
			cmd.Path = script
			cmd.Env = append(cmd.Env, "SHELL=/bin/sh")
			terminal, err := cmd.StdinPipe() // Ctrl-C is a character of it
			require.NoError(t, err)
			var mu sync.Mutex
			var output bytes.Buffer
			reader, writer, err := os.Pipe()
			require.NoError(t, err)
			cmd.Stdout, cmd.Stderr = writer, writer
			require.NoError(t, cmd.Start())
			require.NoError(t, writer.Close())
			go func() {
				chunk := make([]byte, 4096)
				for {
					n, err := reader.Read(chunk)
					mu.Lock()
					output.Write(chunk[:n])
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}()
			printed := func() string {
				mu.Lock()
				defer mu.Unlock()
				return output.String()
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			stop := sync.OnceFunc(func() {
				_, _ = terminal.Write([]byte{3})
				require.NoError(t, <-ended, printed())
				require.Contains(t, printed(), "stopping")
			})
			defer stop()
			labtest.Eventually(t, "the path", func() bool { return strings.Contains(printed(), "One line per event") })
			require.NotContains(t, printed(), "\x1b")
			found := regexp.MustCompile(`The live view: (\S+)`).FindStringSubmatch(printed())
			require.NotNil(t, found)
			opened := func() string {
				content, err := os.ReadFile(filepath.Join(browsers, "opened"))
				require.NoError(t, err)
				return string(content)
			}
			if tc.opened {
				labtest.Eventually(t, "the browser", func() bool { return opened() == found[1]+"\n" })
			}
			stop() // it would have opened one by then
			require.Equal(t, tc.opened, opened() != "")
		})
	}
}
