package awslocal

import (
	"encoding/base64"
	"strings"
)

// streamRef names the stream of a request, by name or by ARN.
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

// find returns the stream of the request, unless the name or another member violates the model. The wording of these errors is the
// service's as kinesalite 3.3.3 keeps it, unless another source is named.
func (k *kinesis) find(ref streamRef, violations ...string) (*stream, error) {
	name := ref.name()
	if name == "" {
		violations = append(violations, nullAt("streamName"))
	} else {
		violations = append(violations, checkName("streamName", name)...)
	}
	if err := validated(violations); err != nil {
		return nil, err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	s, ok := k.streams[name]
	if !ok {
		return nil, clientError("ResourceNotFoundException", "Stream "+name+" under account "+Account+" not found.")
	}
	return s, nil
}

type createStreamInput struct {
	StreamName string
	ShardCount int
}

func (k *kinesis) createStream(_ *call, in *createStreamInput) (any, error) {
	violations := checkName("streamName", in.StreamName)
	if in.ShardCount < 1 {
		violations = append(violations, violation("shardCount", "Member must have value greater than or equal to 1"))
	}
	if err := validated(violations); err != nil {
		return nil, err
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

func (s *stream) sequence(sh *shard, index uint64, arrived int64) sequence {
	return sequence{created: s.created.Unix(), shard: sh.number, index: index, arrived: arrived}
}

func (k *kinesis) describeStreamSummary(_ *call, in *streamRef) (any, error) {
	s, err := k.find(*in)
	if err != nil {
		return nil, err
	}
	return map[string]any{"StreamDescriptionSummary": map[string]any{
		"StreamName":              s.name,
		"StreamARN":               streamARN(s.name),
		"StreamStatus":            "ACTIVE",
		"StreamModeDetails":       map[string]string{"StreamMode": "PROVISIONED"},
		"StreamCreationTimestamp": float64(s.created.UnixMilli()) / 1000,
		"RetentionPeriodHours":    int(k.conf.Retention.Hours()),
		"EncryptionType":          "NONE",
		"EnhancedMonitoring":      []any{map[string]any{"ShardLevelMetrics": []any{}}},
		"MaxRecordSizeInKiB":      maxRecordBytes >> 10,
		"OpenShardCount":          len(s.shards),
		"ConsumerCount":           0,
	}}, nil
}

// Of the filters only AFTER_SHARD_ID leaves out a shard, because every shard has been open since
// the stream was made.
type listShardsInput struct {
	streamRef
	NextToken             string
	ExclusiveStartShardId string
	MaxResults            *int
	ShardFilter           struct{ Type, ShardId string }
}

func (k *kinesis) listShards(_ *call, in *listShardsInput) (any, error) {
	ref, start := in.streamRef, in.ExclusiveStartShardId
	if in.ShardFilter.Type == "AFTER_SHARD_ID" {
		start = max(start, in.ShardFilter.ShardId)
	}
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
	s, err := k.find(ref, checkLimit("maxResults", in.MaxResults)...)
	if err != nil {
		return nil, err
	}
	most := 1000
	if in.MaxResults != nil {
		most = min(most, *in.MaxResults)
	}
	out, shards := map[string]any{}, []any{}
	for _, sh := range s.shards {
		if sh.id <= start {
			continue
		}
		if len(shards) == most {
			out["NextToken"] = base64.StdEncoding.EncodeToString([]byte(s.name + "/" + start))
			break
		}
		start = sh.id // of the next page
		shards = append(shards, map[string]any{
			"ShardId":             sh.id,
			"HashKeyRange":        map[string]string{"StartingHashKey": sh.from.String(), "EndingHashKey": sh.to.String()},
			"SequenceNumberRange": map[string]string{"StartingSequenceNumber": s.sequence(sh, 0, s.created.Unix()).String()},
		})
	}
	out["Shards"] = shards
	return out, nil
}
