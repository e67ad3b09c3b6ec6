//go:build browser

package browser

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// The window of the pictures. Its width is readable in a README, and its height has room for the
// path with its timeline.
const pictureWidth, pictureHeight = 1400, 1070

// picture takes a picture of the window, and writes it where -pictures says. Every run checks the
// picture, so that `make screenshots` works when somebody needs it.
func (tb *tab) picture(name string) {
	tb.t.Helper()
	eval[bool](tb, `(document.querySelector('.experiment.running')?.scrollIntoView({block: 'nearest'}), scrollTo(0, 0), true)`)
	taken, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
	require.NoError(tb.t, err)
	decoded, err := png.Decode(bytes.NewReader(taken))
	require.NoError(tb.t, err)
	require.Equal(tb.t, image.Rect(0, 0, pictureWidth, pictureHeight), decoded.Bounds())
	var small bytes.Buffer
	require.NoError(tb.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, inColours(decoded, palette(256, decoded))))
	tb.t.Logf("%s: %d KiB", name, small.Len()>>10)
	require.Less(tb.t, small.Len(), 250<<10, "%s is too large for a README", name)
	require.Greater(tb.t, small.Len(), 10<<10, "%s shows next to nothing", name)
	if *picturesTo == "" {
		return
	}
	path := filepath.Join(*picturesTo, filepath.FromSlash(name))
	require.NoError(tb.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(tb.t, os.WriteFile(path, small.Bytes(), 0o644))
}

// palette returns the most frequent colours. A page has few colours, and the shades at the edges of
// its letters.
func palette(most int, pictures ...image.Image) color.Palette {
	times := map[color.Color]int{}
	for _, full := range pictures {
		bounds := full.Bounds()
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				times[full.At(x, y)]++
			}
		}
	}
	frequent := slices.SortedFunc(maps.Keys(times), func(a, b color.Color) int { return cmp.Compare(times[b], times[a]) })
	return frequent[:min(most, len(frequent))]
}

// inColours returns the picture in the nearest of these colours.
func inColours(full image.Image, colours color.Palette) *image.Paletted {
	bounds := full.Bounds()
	few := image.NewPaletted(bounds, colours)
	nearest := map[color.Color]uint8{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := full.At(x, y)
			index, known := nearest[c]
			if !known {
				index = uint8(colours.Index(c))
				nearest[c] = index
			}
			few.SetColorIndex(x, y, index)
		}
	}
	return few
}
