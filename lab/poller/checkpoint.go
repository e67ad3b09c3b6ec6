package poller

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// checkpoints is the checkpoint file. Each change writes a new file and renames it into place, so
// that a killed process leaves the old one or the new one. The file is not synced, so a power cut
// may cost the last checkpoints. Their records then come again.
type checkpoints struct {
	Stream string                `json:"stream"`
	Shards map[string]checkpoint `json:"shards"`

	mu   sync.Mutex
	path string // if it is empty nothing is kept
}

// checkpoint is how far a shard is done.
type checkpoint struct {
	SequenceNumber string `json:"sequenceNumber,omitempty"` // of the last record below which nothing is left
	Finished       bool   `json:"finished,omitempty"`       // the shard is closed and read to its end
}

func openCheckpoints(path, stream string) (*checkpoints, error) {
	c := &checkpoints{path: path, Stream: stream, Shards: map[string]checkpoint{}}
	if path == "" {
		return c, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, c.write() // finds out now that it cannot be written
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoints: %w", err)
	}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("reading the checkpoints in %s: %w (delete the file to begin at the horizon)", path, err)
	}
	if c.Stream != stream {
		return nil, fmt.Errorf("%s is of stream %s, not of %s: name another file or delete this one", path, c.Stream, stream)
	}
	return c, nil
}

func (c *checkpoints) get(shard string) checkpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Shards[shard]
}

func (c *checkpoints) set(shard string, to checkpoint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Shards[shard] = to
	return c.write()
}

func (c *checkpoints) write() error {
	if c.path == "" {
		return nil
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding the checkpoints: %w", err)
	}
	// In the same folder, because a rename cannot move a file to another file system.
	temporary := filepath.Join(filepath.Dir(c.path), "."+filepath.Base(c.path)+".new")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("writing the checkpoints: %w", err)
	}
	if err := os.Rename(temporary, c.path); err != nil {
		return fmt.Errorf("writing the checkpoints: %w", err)
	}
	return nil
}

// mayStart reports whether a listed shard is to be read now. It must not be finished. Its parents
// must be finished, or no longer be listed because all they held has expired.
func (c *checkpoints) mayStart(shard types.Shard, listed []types.Shard) bool {
	waitsFor := func(parent *string) bool {
		return parent != nil && !c.get(*parent).Finished &&
			slices.ContainsFunc(listed, func(s types.Shard) bool { return aws.ToString(s.ShardId) == *parent })
	}
	return !c.get(aws.ToString(shard.ShardId)).Finished && !waitsFor(shard.ParentShardId) && !waitsFor(shard.AdjacentParentShardId)
}
