//go:build browser

package browser

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

const (
	filmWidth = 960             // narrow enough for a README, and wide enough for a horizontal path
	filmHold  = 5 * time.Second // of the last shot, which shows how it ended
	maxFilm   = 2 << 20         // bytes
)

// film is a recording of the promise, the banner and the path, for those who do not run the page.
type film struct {
	tb    *tab
	clip  page.Viewport
	gap   time.Duration // least time between two shots
	taken [][]byte      // as PNG, because decoding them during the film would cost shots
	at    []time.Time
}

// newFilm opens a page to record. Without -pictures nobody sees the film, so a few shots of a page
// without motion are enough.
func newFilm(t *testing.T, d *dev) *film {
	t.Helper()
	seen := *picturesTo != ""
	f := &film{tb: show(t, d, look{width: filmWidth, height: 800, still: !seen}), gap: 3 * time.Second}
	if seen {
		f.gap = 0
	}
	f.tb.wait("a state", `document.querySelector('#verdict').textContent.trim()`)
	edge := eval[map[string]float64](f.tb, `({top: document.querySelector('.promise').getBoundingClientRect().top, bottom: document.querySelector('#details').getBoundingClientRect().top})`)
	const margin = 12
	const higher = 48 // the banner is higher at the end, where it says more
	f.clip = page.Viewport{Y: edge["top"] - margin, Width: filmWidth, Height: edge["bottom"] - edge["top"] + margin + higher, Scale: 1}
	return f
}

func (f *film) shoot() {
	f.tb.t.Helper()
	if n := len(f.at); n > 0 && time.Since(f.at[n-1]) < f.gap {
		return
	}
	quick := true // its size does not matter
	taken, err := chromedp.Call(f.tb.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Clip: &f.clip, OptimizeForSpeed: &quick})
	require.NoError(f.tb.t, err)
	f.taken, f.at = append(f.taken, taken.Data), append(f.at, time.Now())
}

// save writes the film as a GIF where -pictures says, after one more shot of how it ended.
func (f *film) save(name string) {
	f.tb.t.Helper()
	f.gap = 0
	f.shoot()
	f.tb.do(chromedp.Navigate("about:blank")) // the open page would cost time
	require.Greater(f.tb.t, len(f.taken), 3, "nothing was recorded")
	var small bytes.Buffer
	require.NoError(f.tb.t, gif.EncodeAll(&small, f.animation()))
	f.tb.t.Logf("%s: %d shots, %d KiB", name, len(f.taken), small.Len()>>10)
	require.Less(f.tb.t, small.Len(), maxFilm, "%s is too large for a README", name)
	if *picturesTo != "" {
		require.NoError(f.tb.t, os.WriteFile(filepath.Join(*picturesTo, name), small.Bytes(), 0o644))
	}
}

// animation returns the film. Of each shot it keeps only what differs from the shot before. Where
// nothing does, the shot is transparent.
func (f *film) animation() *gif.GIF {
	shots := []image.Image{}
	for _, taken := range f.taken {
		shot, err := png.Decode(bytes.NewReader(taken))
		require.NoError(f.tb.t, err)
		shots = append(shots, shot)
	}
	colours := append(palette(255, shots...), color.Transparent)
	transparent := uint8(len(colours) - 1)
	animation := &gif.GIF{}
	var before *image.Paletted
	for i, shot := range shots {
		until := f.at[i].Add(filmHold)
		if i+1 < len(f.at) {
			until = f.at[i+1]
		}
		delay := int(until.Sub(f.at[i]) / (10 * time.Millisecond))
		full := inColours(shot, colours[:transparent])
		full.Palette = colours
		changed := full.Rect
		if before != nil {
			changed = difference(before, full)
		}
		if changed.Empty() {
			animation.Delay[len(animation.Delay)-1] += delay
			continue
		}
		part := image.NewPaletted(changed, colours)
		for y := changed.Min.Y; y < changed.Max.Y; y++ {
			for x := changed.Min.X; x < changed.Max.X; x++ {
				index := full.ColorIndexAt(x, y)
				if before != nil && index == before.ColorIndexAt(x, y) {
					index = transparent
				}
				part.SetColorIndex(x, y, index)
			}
		}
		animation.Image, animation.Delay = append(animation.Image, part), append(animation.Delay, delay)
		animation.Disposal = append(animation.Disposal, gif.DisposalNone)
		before = full
	}
	return animation
}

// difference returns the smallest rectangle outside of which two pictures are equal.
func difference(one, other *image.Paletted) image.Rectangle {
	var changed image.Rectangle
	for y := one.Rect.Min.Y; y < one.Rect.Max.Y; y++ {
		for x := one.Rect.Min.X; x < one.Rect.Max.X; x++ {
			if one.ColorIndexAt(x, y) != other.ColorIndexAt(x, y) {
				changed = changed.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return changed
}
