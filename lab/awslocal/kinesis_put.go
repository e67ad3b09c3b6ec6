package awslocal

import (
	"crypto/md5" // Kinesis maps partition keys to shards with it
	"errors"
	"fmt"
	"math/big"
	"sort"
	"time"
	"unicode/utf8"
)

const (
	maxRecordBytes  = 1 << 20  // key and data, of a stream whose MaxRecordSizeInKiB was not raised
	maxPutRecords   = 500      // records of one PutRecords
	maxPutBytes     = 10 << 20 // keys and data of one PutRecords
	maxPartitionKey = 256      // characters
)

type putRecord struct {
	PartitionKey    string
	ExplicitHashKey *string
	Data            []byte
}

// SequenceNumberForOrdering has no effect here, because the sequence numbers of a shard always grow in
// the order of the answers. That is a simplification. AWS promises it only for puts with this member.
type putRecordInput struct {
	streamRef
	putRecord
	SequenceNumberForOrdering *string
}

func (in *putRecordInput) matches(text string) bool { return in.PartitionKey == text }

type putRecordsInput struct {
	streamRef
	Records []putRecord
}

func (in *putRecordsInput) entries() int { return len(in.Records) }

func (in *putRecordsInput) matches(text string) bool {
	for _, r := range in.Records {
		if r.PartitionKey == text {
			return true
		}
	}
	return false
}

// putResult is the answer for one record. It has SequenceNumber and ShardId, or ErrorCode and
// ErrorMessage.
type putResult struct {
	SequenceNumber string `json:",omitempty"`
	ShardId        string `json:",omitempty"`
	ErrorCode      string `json:",omitempty"`
	ErrorMessage   string `json:",omitempty"`
}

type putRecordsOutput struct {
	FailedRecordCount int
	Records           []putResult
	EncryptionType    string
}

func (r *putRecord) violations(prefix string) (all []string) {
	all = append(checkLength(prefix+"partitionKey", utf8.RuneCountInString(r.PartitionKey), maxPartitionKey),
		hashKeyPattern.checkOptional(prefix+"explicitHashKey", r.ExplicitHashKey)...)
	if r.Data == nil {
		all = append(all, nullAt(prefix+"data"))
	} else if len(r.PartitionKey)+len(r.Data) > maxRecordBytes {
		all = append(all, violation(prefix+"data", atMost(maxRecordBytes))) // amazon-kinesis-producer#680
	}
	return all
}

func (k *kinesis) putRecords(c *call, in *putRecordsInput) (any, error) {
	violations, bytes := checkLength("records", len(in.Records), maxPutRecords), 0
	for i := range in.Records {
		violations = append(violations, in.Records[i].violations(fmt.Sprintf("records.%d.member.", i+1))...)
		bytes += len(in.Records[i].PartitionKey) + len(in.Records[i].Data)
	}
	s, err := k.find(in.streamRef, violations...)
	if err != nil {
		return nil, err
	}
	if bytes > maxPutBytes {
		// The wording is known for the limit of 5 MB that AWS had (amazon-kinesis-streams-for-fluent-bit#21).
		return nil, clientError("InvalidArgumentException", "Records size exceeds 10 MB limit")
	}
	results, err := k.put(c, s, in.Records)
	if err != nil {
		return nil, err
	}
	out := putRecordsOutput{Records: results, EncryptionType: "NONE"}
	for _, r := range results {
		if r.ErrorCode != "" {
			out.FailedRecordCount++
		}
	}
	return out, nil
}

func (k *kinesis) putRecord(c *call, in *putRecordInput) (any, error) {
	violations := append(sequencePattern.checkOptional("sequenceNumberForOrdering", in.SequenceNumberForOrdering), in.violations("")...)
	s, err := k.find(in.streamRef, violations...)
	if err != nil {
		return nil, err
	}
	results, err := k.put(c, s, []putRecord{in.putRecord})
	switch {
	case err != nil:
		return nil, err
	case results[0].ErrorCode == "InternalFailure":
		return nil, internalError(errors.New(results[0].ErrorMessage))
	case results[0].ErrorCode != "":
		return nil, clientError(results[0].ErrorCode, results[0].ErrorMessage)
	}
	return struct {
		putResult
		EncryptionType string
	}{results[0], "NONE"}, nil
}

// put stores what the faults and the shards' limits let pass. Records of one shard keep the
// request's order among each other. A record that fails does not hold back its successors, so naive
// retries reorder.
func (k *kinesis) put(c *call, s *stream, records []putRecord) ([]putResult, error) {
	results := make([]putResult, len(records))
	type group struct {
		records []putRecord
		places  []int // in the request
	}
	groups := make([]group, len(s.shards))
	now := k.now()
	for i := range records {
		r := &records[i]
		sh, err := s.route(r)
		if err != nil {
			return nil, err
		}
		if fault := c.onEntry(func(text string) bool { return text == r.PartitionKey }); fault != nil {
			results[i] = putResult{ErrorCode: fault.Code, ErrorMessage: fault.apiError().message}
		} else if !sh.limits.write(now, len(r.PartitionKey)+len(r.Data)) {
			e := s.throttled(sh)
			results[i] = putResult{ErrorCode: e.code, ErrorMessage: e.message}
		} else {
			g := &groups[sh.number]
			g.records, g.places = append(g.records, *r), append(g.places, i)
		}
	}
	defer k.wake()
	for n, g := range groups {
		if len(g.records) == 0 {
			continue
		}
		sh := s.shards[n]
		first, arrival, err := sh.log.append(now, g.records)
		if err != nil {
			k.conf.Log.Error("storing records", "stream", s.name, "shard", sh.id, "err", err)
		}
		for i, place := range g.places {
			if err != nil {
				results[place] = putResult{ErrorCode: "InternalFailure", ErrorMessage: "Internal Service Failure"}
				continue
			}
			seq := s.sequence(sh, first+uint64(i), arrival/1000)
			results[place] = putResult{SequenceNumber: seq.String(), ShardId: sh.id}
			if k.conf.OnRecord != nil {
				k.conf.OnRecord(StreamRecord{
					Stream: s.name, Shard: sh.id, SequenceNumber: results[place].SequenceNumber, Index: seq.index,
					Arrival: time.UnixMilli(arrival), PartitionKey: g.records[i].PartitionKey, Data: g.records[i].Data,
				})
			}
		}
	}
	return results, nil
}

// throttled is worded as in kinesalite#87, copied there from the service.
func (s *stream) throttled(sh *shard) *apiError {
	return clientError("ProvisionedThroughputExceededException",
		"Rate exceeded for shard "+sh.id+" in stream "+s.name+" under account "+Account+".")
}

// route finds the shard whose range holds the record's hash key.
func (s *stream) route(r *putRecord) (*shard, error) {
	var hash big.Int
	if r.ExplicitHashKey == nil {
		sum := md5.Sum([]byte(r.PartitionKey))
		hash.SetBytes(sum[:])
	} else if _, ok := hash.SetString(*r.ExplicitHashKey, 10); !ok || hash.BitLen() > 128 {
		return nil, clientError("InvalidArgumentException", "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "+
			"Specified value was "+*r.ExplicitHashKey)
	}
	return s.shards[sort.Search(len(s.shards), func(i int) bool { return s.shards[i].to.Cmp(&hash) >= 0 })], nil
}
