package awslocal

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// streamRef names the stream of a request: by name or by ARN.
type streamRef struct {
	StreamName string
	StreamARN  string
}

func (r streamRef) name() string {
	if r.StreamName != "" {
		return r.StreamName
	}
	_, name, _ := strings.Cut(r.StreamARN, ":stream/")
	return name
}

func streamARN(name string) string {
	return "arn:aws:kinesis:" + Region + ":" + Account + ":stream/" + name
}

// find returns the stream of the request. The wording of these errors is the service's as kinesalite 3.3.3 keeps it, unless
// another source is named.
func (k *kinesis) find(ref streamRef) (*stream, error) {
	name := ref.name()
	if name == "" {
		return nil, clientError("ValidationException", invalid(nullAt("streamName")))
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	s, ok := k.streams[name]
	if !ok {
		return nil, clientError("ResourceNotFoundException", "Stream "+name+" under account "+Account+" not found.")
	}
	return s, nil
}

// invalid words a ValidationException. The value itself is left out, as AWS does today (amazon-kinesis-producer#680).
func invalid(violations ...string) string {
	plural := ""
	if len(violations) > 1 {
		plural = "s"
	}
	const shown = 10
	return fmt.Sprintf("%d validation error%s detected: %s", len(violations), plural, strings.Join(violations[:min(shown, len(violations))], "; "))
}

func violation(member, constraint string) string {
	return "Value at '" + member + "' failed to satisfy constraint: " + constraint
}

func nullAt(member string) string {
	return "Value null at '" + member + "' failed to satisfy constraint: Member must not be null"
}

func atMost(n int) string { return fmt.Sprintf("Member must have length less than or equal to %d", n) }

const atLeastOne = "Member must have length greater than or equal to 1"

type createStreamInput struct {
	StreamName string
	ShardCount int
}

func (k *kinesis) createStream(_ *call, in *createStreamInput) (any, error) {
	if !streamName.MatchString(in.StreamName) {
		return nil, clientError("ValidationException", invalid(violation("streamName", "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")))
	}
	if in.ShardCount < 1 {
		return nil, clientError("ValidationException", invalid(violation("shardCount", "Member must have value greater than or equal to 1")))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.streams[in.StreamName]; ok {
		return nil, clientError("ResourceInUseException", "Stream "+in.StreamName+" under account "+Account+" already exists.")
	}
	if in.ShardCount > 500 {
		return nil, clientError("LimitExceededException", "This listener has at most 500 shards in a stream.")
	}
	return nil, k.create(in.StreamName, in.ShardCount)
}

type shardOutput struct {
	ShardId      string
	HashKeyRange struct {
		StartingHashKey, EndingHashKey string
	}
	SequenceNumberRange struct {
		StartingSequenceNumber string
	}
}

func (s *stream) describe(shards []*shard) []shardOutput {
	out := []shardOutput{}
	for _, sh := range shards {
		var o shardOutput
		o.ShardId = sh.id
		o.HashKeyRange.StartingHashKey, o.HashKeyRange.EndingHashKey = sh.from.String(), sh.to.String()
		o.SequenceNumberRange.StartingSequenceNumber = s.sequence(sh, 0, s.created.Unix()).String()
		out = append(out, o)
	}
	return out
}

func (s *stream) sequence(sh *shard, index uint64, arrived int64) sequence {
	return sequence{created: s.created.Unix(), shard: sh.number, index: index, arrived: arrived}
}

// after returns up to limit shards behind the one named, and whether there are more.
func (s *stream) after(shardID string, limit int) (shards []*shard, more bool) {
	shards = s.shards
	for len(shards) > 0 && shards[0].id <= shardID {
		shards = shards[1:]
	}
	if len(shards) > limit {
		return shards[:limit], true
	}
	return shards, false
}

type describeStreamInput struct {
	streamRef
	ExclusiveStartShardId string
	Limit                 int
}

func (k *kinesis) summary(s *stream) map[string]any {
	return map[string]any{
		"StreamName":              s.name,
		"StreamARN":               streamARN(s.name),
		"StreamStatus":            "ACTIVE",
		"StreamModeDetails":       map[string]string{"StreamMode": "PROVISIONED"},
		"StreamCreationTimestamp": float64(s.created.UnixMilli()) / 1000,
		"RetentionPeriodHours":    int(k.conf.Retention.Hours()),
		"EncryptionType":          "NONE",
		"EnhancedMonitoring":      []any{map[string]any{"ShardLevelMetrics": []any{}}},
		"MaxRecordSizeInKiB":      maxRecordBytes >> 10,
	}
}

func (k *kinesis) describeStream(_ *call, in *describeStreamInput) (any, error) {
	s, err := k.find(in.streamRef)
	if err != nil {
		return nil, err
	}
	limit := in.Limit
	if limit == 0 {
		limit = 100
	}
	shards, more := s.after(in.ExclusiveStartShardId, limit)
	out := k.summary(s)
	out["Shards"], out["HasMoreShards"] = s.describe(shards), more
	return map[string]any{"StreamDescription": out}, nil
}

func (k *kinesis) describeStreamSummary(_ *call, in *streamRef) (any, error) {
	s, err := k.find(*in)
	if err != nil {
		return nil, err
	}
	out := k.summary(s)
	out["OpenShardCount"], out["ConsumerCount"] = len(s.shards), 0
	return map[string]any{"StreamDescriptionSummary": out}, nil
}

// ShardFilter is not looked at: every shard is open since the stream was made, which all filters but AFTER_SHARD_ID select.
type listShardsInput struct {
	streamRef
	NextToken             string
	ExclusiveStartShardId string
	MaxResults            int
}

type listShardsOutput struct {
	Shards    []shardOutput
	NextToken string `json:",omitempty"`
}

func (k *kinesis) listShards(_ *call, in *listShardsInput) (any, error) {
	ref, start := in.streamRef, in.ExclusiveStartShardId
	switch {
	case in.NextToken == "" && ref.name() == "":
		return nil, clientError("InvalidArgumentException", "Either NextToken or StreamName should be provided.")
	case in.NextToken != "" && ref.name() != "":
		return nil, clientError("InvalidArgumentException", "NextToken and StreamName cannot be provided together.")
	case in.NextToken != "":
		token, err := base64.StdEncoding.DecodeString(in.NextToken)
		name, shardID, ok := strings.Cut(string(token), "/")
		if err != nil || !ok {
			return nil, clientError("InvalidArgumentException", "NextToken is invalid.")
		}
		ref, start = streamRef{StreamName: name}, shardID
	}
	s, err := k.find(ref)
	if err != nil {
		return nil, err
	}
	limit := in.MaxResults
	if limit == 0 {
		limit = 1000
	}
	shards, more := s.after(start, limit)
	out := listShardsOutput{Shards: s.describe(shards)}
	if more {
		out.NextToken = base64.StdEncoding.EncodeToString([]byte(s.name + "/" + shards[len(shards)-1].id))
	}
	return out, nil
}
