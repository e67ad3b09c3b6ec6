package awslocal

import "sync"

// shardLimits is the throughput of one shard, as token buckets of one second. A nil *shardLimits allows everything.
type shardLimits struct {
	mu                        sync.Mutex
	records, bytes            bucket // written
	getRecords, getRecordsOut bucket // calls, bytes
}

func newShardLimits() *shardLimits {
	return &shardLimits{
		records: bucket{rate: 1000}, bytes: bucket{rate: 1 << 20},
		getRecords: bucket{rate: 5}, getRecordsOut: bucket{rate: 2 << 20},
	}
}

// write takes one record's share, or nothing.
func (l *shardLimits) write(now int64, bytes int) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records.at(now) < 1 || l.bytes.at(now) < float64(bytes) {
		return false
	}
	l.records.level--
	l.bytes.level -= float64(bytes)
	return true
}

// read takes one GetRecords call's share, or nothing. The bytes that a call then returns are its
// debt. After 10 MiB the next calls fail for about 5 seconds, as the API reference says.
func (l *shardLimits) read(now int64) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.getRecords.at(now) < 1 || l.getRecordsOut.at(now) <= 0 {
		return false
	}
	l.getRecords.level--
	return true
}

func (l *shardLimits) returned(bytes int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.getRecordsOut.level -= float64(bytes)
}

// bucket refills with rate a second up to one second's worth. It begins full.
type bucket struct {
	rate, level float64
	filled      int64 // Unix milliseconds
}

func (b *bucket) at(now int64) float64 {
	if b.filled == 0 {
		b.level = b.rate
	} else if now > b.filled {
		b.level = min(b.rate, b.level+b.rate*float64(now-b.filled)/1000)
	}
	b.filled = now
	return b.level
}
