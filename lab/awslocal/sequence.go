package awslocal

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/big"
	"math/bits"
	"time"
)

// sequence is the content of a sequence number. Its layout is the one that kinesalite found in the
// real service (db/index.js, version 2). It has the hex digits 2, 9 of the shard's creation second,
// 1 of the shard, 16 of the index, 00, 9 of the arrival second, 8 of the shard, 2. In decimal that
// is 56 digits that grow with the index.
type sequence struct {
	created int64  // Unix second of the stream's creation
	shard   int    // number of the shard
	index   uint64 // 1, 2, 3 ... within the shard; 0 stands before the first record
	arrived int64  // Unix second
}

func (s sequence) append(dst []byte) []byte {
	shard := uint64(s.shard)
	hi := 2<<56 | uint64(s.created)<<20 | shard&0xf<<16 | s.index>>48
	mid := s.index<<16 | uint64(s.arrived)>>28
	lo := uint64(s.arrived)<<36 | shard<<4 | 2
	var digits [57]byte
	for end := len(digits); end > 0; end -= 19 { // 19 digits are as many as a division by a 64-bit number yields
		const chunk = 1e19
		var rest uint64
		hi, rest = bits.Div64(0, hi, chunk)
		mid, rest = bits.Div64(rest, mid, chunk)
		lo, rest = bits.Div64(rest, lo, chunk)
		for i := end - 1; i >= end-19; i-- {
			digits[i] = byte('0' + rest%10)
			rest /= 10
		}
	}
	return append(dst, digits[1:]...) // 186 bits never reach the 57th digit
}

func (s sequence) String() string { return string(s.append(nil)) }

func parseSequence(text string) (sequence, bool) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.Sign() < 0 || n.BitLen() != 186 {
		return sequence{}, false
	}
	var raw [24]byte
	n.FillBytes(raw[:])
	hi, mid, lo := binary.BigEndian.Uint64(raw[:]), binary.BigEndian.Uint64(raw[8:]), binary.BigEndian.Uint64(raw[16:])
	s := sequence{
		created: int64(hi << 8 >> 28),
		shard:   int(lo << 28 >> 32),
		index:   hi<<48 | mid>>16,
		arrived: int64(mid&0xff<<28 | lo>>36),
	}
	return s, s.String() == text
}

// iterator is a shard iterator, the place to read on from. It names everything itself, so it
// survives a restart of the listener.
type iterator struct {
	stream  string
	created int64 // of the stream, in Unix milliseconds, so that an iterator of a deleted namesake is refused
	shard   int
	next    uint64 // index of the first record to read
	made    int64  // Unix milliseconds
}

const iteratorLife = 5 * time.Minute

func (it iterator) String() string {
	b := binary.AppendUvarint(nil, uint64(it.created))
	b = binary.AppendUvarint(b, uint64(it.shard))
	b = binary.AppendUvarint(b, it.next)
	b = binary.AppendUvarint(b, uint64(it.made))
	b = append(b, it.stream...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.StdEncoding.EncodeToString(b)
}

var errIterator = errors.New("no iterator of ours")

func parseIterator(text string) (iterator, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) < 4 {
		return iterator{}, errIterator
	}
	b, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.ChecksumIEEE(b) != sum {
		return iterator{}, errIterator
	}
	var numbers [4]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return iterator{}, errIterator
		}
		numbers[i], b = n, b[size:]
	}
	return iterator{
		stream: string(b), created: int64(numbers[0]), shard: int(numbers[1]), next: numbers[2], made: int64(numbers[3]),
	}, nil
}
