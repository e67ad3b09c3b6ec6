package awslocal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is a file of consecutive records of one shard, named after the index of its first
// record. A record is
// length uint32 | crc32c uint32 | arrival in Unix milliseconds uint64 | key length uint16 | key | data, big-endian.
// Length and checksum are of what follows the checksum.
type segment struct {
	path  string
	base  uint64 // index of the first record
	size  int64  // bytes of whole records
	last  int64  // arrival of the last record, while size > 0
	marks []mark // every markEvery bytes. Memory knows nothing else of the records
}

type mark struct {
	index  uint64
	offset int64
}

const (
	frameHeader   = 8
	recordHeader  = 10
	markEvery     = 64 << 10
	segmentSuffix = ".log"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stored is a record as it lies in a shard. Key and data are valid until the next record is read.
type stored struct {
	index     uint64
	arrival   int64 // Unix milliseconds
	key, data []byte
}

func appendFrame(dst []byte, arrival int64, key string, data []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(recordHeader+len(key)+len(data)))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(arrival))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(key)))
	dst = append(dst, key...)
	dst = append(dst, data...)
	binary.BigEndian.PutUint32(dst[start+4:], crc32.Checksum(dst[start+frameHeader:], castagnoli))
	return dst
}

// frames reads records one after the other.
type frames struct {
	r      *bufio.Reader
	header [frameHeader]byte
	buf    []byte
}

func newFrames(r io.Reader) *frames { return &frames{r: bufio.NewReaderSize(r, 128<<10)} }

// next returns the record and its size on disk. It returns io.EOF at the end, and
// io.ErrUnexpectedEOF inside a record.
func (f *frames) next() (stored, int64, error) {
	if _, err := io.ReadFull(f.r, f.header[:]); err != nil {
		return stored{}, 0, err
	}
	length, sum := binary.BigEndian.Uint32(f.header[:]), binary.BigEndian.Uint32(f.header[4:])
	if length < recordHeader || length > maxRecordBytes+recordHeader {
		return stored{}, 0, fmt.Errorf("impossible record length %d", length)
	}
	f.buf = slices.Grow(f.buf[:0], int(length))[:length]
	if _, err := io.ReadFull(f.r, f.buf); errors.Is(err, io.EOF) {
		return stored{}, 0, io.ErrUnexpectedEOF // nothing follows the header
	} else if err != nil {
		return stored{}, 0, err
	}
	if crc32.Checksum(f.buf, castagnoli) != sum {
		return stored{}, 0, errors.New("checksum does not match")
	}
	keyEnd := recordHeader + int(binary.BigEndian.Uint16(f.buf[8:]))
	if keyEnd > int(length) {
		return stored{}, 0, errors.New("the key is longer than its record")
	}
	rec := stored{arrival: int64(binary.BigEndian.Uint64(f.buf)), key: f.buf[recordHeader:keyEnd], data: f.buf[keyEnd:]}
	return rec, frameHeader + int64(length), nil
}

// add notes a record that is now in the file.
func (s *segment) add(index uint64, arrival, size int64) {
	if len(s.marks) == 0 || s.size-s.marks[len(s.marks)-1].offset >= markEvery {
		s.marks = append(s.marks, mark{index: index, offset: s.size})
	}
	s.size += size
	s.last = arrival
}

// load reads the whole segment, checks it and returns the index after its last record. tornOK says that its last record may be torn, and
// is then not counted. A torn or damaged record elsewhere is an error, because cutting there would drop accepted records.
func (s *segment) load(r io.Reader, tornOK bool) (next uint64, err error) {
	frames := newFrames(r)
	for index := s.base; ; index++ {
		rec, size, err := frames.next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && tornOK:
			return index, nil
		case err != nil:
			return 0, fmt.Errorf("reading %s at byte %d: %w; remove the state folder to start anew", s.path, s.size, err)
		}
		s.add(index, rec.arrival, size)
	}
}

func segmentPath(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

// listSegments returns the segments of dir, oldest first.
func listSegments(dir string) ([]*segment, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("listing segments: %w", err)
	}
	var segments []*segment
	for _, entry := range entries {
		digits, ok := strings.CutSuffix(entry.Name(), segmentSuffix)
		if !ok {
			continue
		}
		base, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("file %s in %s is no segment: remove it", entry.Name(), dir)
		}
		segments = append(segments, &segment{path: filepath.Join(dir, entry.Name()), base: base})
	}
	return segments, nil
}
