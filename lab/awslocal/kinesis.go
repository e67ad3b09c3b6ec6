package awslocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// kinesis holds the streams. Their number of shards is fixed and they are ACTIVE at once. All other
// behaviour of the service that a producer or a consumer can see is kept.
type kinesis struct {
	conf    Config
	mu      sync.RWMutex
	streams map[string]*stream

	storedMu sync.Mutex
	stored   chan struct{} // closed when a stream stores records
}

type stream struct {
	name    string
	created time.Time
	shards  []*shard
}

type shard struct {
	id       string // shardId-000000000000
	number   int
	from, to *big.Int // of the hash key, both inclusive
	log      *shardLog
	limits   *shardLimits // nil without limits
}

// streamFile is the stream's entry in its folder.
type streamFile struct {
	Name    string
	Created time.Time
	Shards  int
}

// The prefix also keeps the legal names "." and ".." from being folders.
const streamFolder = "stream-"

func (k *kinesis) dir(name string) string { return filepath.Join(k.conf.Dir, streamFolder+name) }

func openKinesis(conf Config) (*kinesis, error) {
	k := &kinesis{conf: conf, streams: map[string]*stream{}, stored: make(chan struct{})}
	folders, err := os.ReadDir(conf.Dir)
	if err != nil {
		return nil, fmt.Errorf("listing streams: %w", err)
	}
	for _, folder := range folders {
		if !strings.HasPrefix(folder.Name(), streamFolder) {
			continue
		}
		// A folder without the file was being made when the process was killed. create finishes it.
		if err := k.load(filepath.Join(conf.Dir, folder.Name(), "stream.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	for i, s := range conf.Streams {
		if len(checkName("Name", s.Name)) > 0 || s.Shards < 1 || s.Shards > 500 {
			return k, fmt.Errorf("awslocal: Config.Streams[%d] %+v: Name is 1 to 128 of a-z A-Z 0-9 _ . -, Shards 1 to 500", i, s)
		}
		if have, ok := k.streams[s.Name]; !ok {
			if err := k.create(s.Name, s.Shards); err != nil {
				return k, err
			}
		} else if len(have.shards) != s.Shards {
			return k, fmt.Errorf("awslocal: Config.Streams[%d].Shards is %d, but stream %s in %s has %d: keep that, or remove the folder",
				i, s.Shards, s.Name, conf.Dir, len(have.shards))
		}
	}
	return k, nil
}

func (k *kinesis) load(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading a stream: %w", err)
	}
	var file streamFile
	if err := json.Unmarshal(content, &file); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	s := &stream{name: file.Name, created: file.Created}
	hashes := new(big.Int).Lsh(big.NewInt(1), 128)
	width := new(big.Int).Div(hashes, big.NewInt(int64(file.Shards)))
	for n := range file.Shards {
		sh := &shard{id: fmt.Sprintf("shardId-%012d", n), number: n}
		sh.from = new(big.Int).Mul(width, big.NewInt(int64(n)))
		sh.to = new(big.Int).Add(sh.from, width)
		if n == file.Shards-1 {
			sh.to.Set(hashes) // the last shard takes what the division left over
		}
		sh.to.Sub(sh.to, big.NewInt(1))
		sh.log, err = openShardLog(filepath.Join(filepath.Dir(path), sh.id), k.conf.Retention, k.conf.ShardBytes, k.now())
		if err != nil {
			return errors.Join(err, s.close())
		}
		if k.conf.ShardLimits {
			sh.limits = newShardLimits()
		}
		s.shards = append(s.shards, sh)
	}
	k.streams[s.name] = s
	return nil
}

// create makes the stream's entry with a rename, so that a kill leaves either a whole stream or none.
func (k *kinesis) create(name string, shards int) error {
	if err := os.MkdirAll(k.dir(name), 0o700); err != nil {
		return fmt.Errorf("making a stream's folder: %w", err)
	}
	content, err := json.Marshal(streamFile{Name: name, Created: k.conf.Now().UTC().Truncate(time.Millisecond), Shards: shards})
	if err != nil {
		return err
	}
	path := filepath.Join(k.dir(name), "stream.json")
	if err := errors.Join(os.WriteFile(path+".new", content, 0o600), os.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("making stream %s: %w", name, err)
	}
	return k.load(path)
}

func (k *kinesis) now() int64 { return k.conf.Now().UnixMilli() }

// nextStored returns a channel that is closed when a stream next stores records.
func (k *kinesis) nextStored() <-chan struct{} {
	k.storedMu.Lock()
	defer k.storedMu.Unlock()
	return k.stored
}

// wake wakes those who wait for records.
func (k *kinesis) wake() {
	k.storedMu.Lock()
	defer k.storedMu.Unlock()
	close(k.stored)
	k.stored = make(chan struct{})
}

func (k *kinesis) close() error {
	var errs []error
	for _, s := range k.streams {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

func (s *stream) close() error {
	var errs []error
	for _, sh := range s.shards {
		errs = append(errs, sh.log.close())
	}
	return errors.Join(errs...)
}
