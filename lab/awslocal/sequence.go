package awslocal

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math/big"
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

func (s sequence) String() string {
	shard := uint64(s.shard)
	var raw [24]byte
	binary.BigEndian.PutUint64(raw[:], 2<<56|uint64(s.created)<<20|shard&0xf<<16|s.index>>48)
	binary.BigEndian.PutUint64(raw[8:], s.index<<16|uint64(s.arrived)>>28)
	binary.BigEndian.PutUint64(raw[16:], uint64(s.arrived)<<36|shard<<4|2)
	return new(big.Int).SetBytes(raw[:]).String()
}

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
	stream string
	iteratorPlace
}

// iteratorPlace has fields of a fixed size only, because binary encodes nothing else.
type iteratorPlace struct {
	Created int64 // of the stream, in Unix milliseconds, so that an iterator of a deleted namesake is refused
	Shard   int32
	Next    uint64 // index of the first record to read
	Made    int64  // Unix milliseconds
}

const iteratorLife = 5 * time.Minute

func (it iterator) String() string {
	b, _ := binary.Append(nil, binary.BigEndian, it.iteratorPlace) // fails only for other types
	b = append(b, it.stream...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.StdEncoding.EncodeToString(b)
}

// parseIterator returns false for a text that String did not make.
func parseIterator(text string) (it iterator, ok bool) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) < 4 {
		return it, false
	}
	b, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	n, err := binary.Decode(b, binary.BigEndian, &it.iteratorPlace)
	if err != nil || crc32.ChecksumIEEE(b) != sum {
		return it, false
	}
	it.stream = string(b[n:])
	return it, true
}
