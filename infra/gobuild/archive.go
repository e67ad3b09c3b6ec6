package gobuild

import (
	"archive/tar"
	"bytes"
	"maps"
	"os"
	"slices"
	"time"
)

// Archive packs files, by their name in the archive, as a tar in the order of names. Programs are
// executable, and nothing is writable. The time is 0, because the time of the build would make
// every archive a new one.
func Archive(files map[string]string) ([]byte, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		info, err := os.Stat(files[name])
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: name, Mode: 0o444, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if info.Mode()&0o100 != 0 {
			header.Mode = 0o555
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
