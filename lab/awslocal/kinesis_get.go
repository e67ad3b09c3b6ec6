package awslocal

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxGetRecords = 10_000
	maxGetBytes   = 10 << 20 // keys and data
	maxIterator   = 512      // characters
)

type getShardIteratorInput struct {
	streamRef
	ShardId                string
	ShardIteratorType      string
	StartingSequenceNumber *string
	Timestamp              *epochTime
}

func (k *kinesis) getShardIterator(_ *call, in *getShardIteratorInput) (any, error) {
	s, err := k.find(in.streamRef, in.violations()...)
	if err != nil {
		return nil, err
	}
	sh, err := s.shard(in.ShardId)
	if err != nil {
		return nil, err
	}
	next, err := k.position(s, sh, in)
	if err != nil {
		return nil, err
	}
	return map[string]string{"ShardIterator": s.iterator(sh, next, k.now())}, nil
}

func (in *getShardIteratorInput) violations() []string {
	all := checkName("shardId", in.ShardId)
	switch in.ShardIteratorType {
	case "TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP":
	default:
		all = append(all, violation("shardIteratorType",
			"Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"))
	}
	return append(all, sequencePattern.checkOptional("startingSequenceNumber", in.StartingSequenceNumber)...)
}

// shard looks only at the number after the hyphen, as the service does, so shardId-1 is
// shardId-000000000001 (kinesalite's test/getShardIterator.js, which also runs against the
// service).
func (s *stream) shard(id string) (*shard, error) {
	_, digits, ok := strings.Cut(id, "-")
	if !ok {
		digits = id
	}
	number, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return nil, clientError("ResourceNotFoundException", "Could not find shard "+id+" in stream "+s.name+" under account "+Account+".")
	}
	if number >= uint64(len(s.shards)) {
		return nil, clientError("ResourceNotFoundException", fmt.Sprintf("Shard shardId-%012d in stream %s under account %s does not exist", number, s.name, Account))
	}
	return s.shards[number], nil
}

func (s *stream) iterator(sh *shard, next uint64, now int64) string {
	return iterator{s.name, iteratorPlace{Created: s.created.UnixMilli(), Shard: int32(sh.number), Next: next, Made: now}}.String()
}

func (k *kinesis) position(s *stream, sh *shard, in *getShardIteratorInput) (uint64, error) {
	bySequence := strings.HasSuffix(in.ShardIteratorType, "SEQUENCE_NUMBER")
	if bySequence != (in.StartingSequenceNumber != nil) {
		also := "and no StartingSequenceNumber."
		if in.StartingSequenceNumber != nil {
			also = "and also a StartingSequenceNumber."
		}
		return 0, clientError("InvalidArgumentException", "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "+
			"StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified "+in.ShardIteratorType+" "+also)
	}
	switch in.ShardIteratorType {
	case "TRIM_HORIZON":
		return 1, nil
	case "LATEST":
		return sh.log.end(), nil
	case "AT_TIMESTAMP":
		return k.positionAt(sh, in.Timestamp)
	}
	seq, err := s.checkSequence(sh, *in.StartingSequenceNumber)
	if err != nil {
		return 0, err
	}
	if in.ShardIteratorType == "AFTER_SEQUENCE_NUMBER" {
		return seq.index + 1, nil
	}
	return seq.index, nil
}

func (k *kinesis) positionAt(sh *shard, timestamp *epochTime) (uint64, error) {
	if timestamp == nil {
		return 0, clientError("InvalidArgumentException", "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "+
			"Current request has no timestamp parameter.")
	}
	now, at := k.now(), timestamp.UnixMilli()
	if at > now {
		return 0, clientError("InvalidArgumentException", fmt.Sprintf("The timestampInMillis parameter cannot be greater than the "+
			"currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d", at, now))
	}
	return sh.log.at(now, at)
}

func (s *stream) checkSequence(sh *shard, text string) (sequence, error) {
	seq, ok := parseSequence(text)
	where := "StartingSequenceNumber " + text + " used in GetShardIterator on shard " + sh.id + " in stream " + s.name + " under account " + Account + " is invalid"
	switch {
	case !ok:
		return seq, clientError("InvalidArgumentException", where+".")
	case seq.shard != sh.number:
		return seq, clientError("InvalidArgumentException", fmt.Sprintf("Invalid StartingSequenceNumber. It encodes shardId-%012d, "+
			"while it was used in a call to a shard with %s", seq.shard, sh.id))
	case seq.created != s.created.Unix():
		return seq, clientError("InvalidArgumentException", where+" because it did not come from this stream.")
	case seq.index >= sh.log.end():
		// Accepting it would skip the records that are still to come.
		return seq, clientError("InvalidArgumentException", where+".")
	}
	return seq, nil
}

type getRecordsInput struct {
	ShardIterator string
	Limit         *int
}

func (k *kinesis) getRecords(_ *call, in *getRecordsInput) (any, error) {
	limit := maxGetRecords
	if in.Limit != nil {
		limit = *in.Limit
	}
	if limit > maxGetRecords { // from the API reference. The service's model says ValidationException
		return nil, clientError("InvalidArgumentException", fmt.Sprintf("Limit must be at most %d.", maxGetRecords))
	}
	if err := validated(append(checkLimit("limit", in.Limit), checkLength("shardIterator", utf8.RuneCountInString(in.ShardIterator), maxIterator)...)); err != nil {
		return nil, err
	}
	it, ok := parseIterator(in.ShardIterator)
	if !ok {
		return nil, clientError("InvalidArgumentException", "Invalid ShardIterator.")
	}
	now := k.now()
	if made := time.UnixMilli(it.Made); now-it.Made > iteratorLife.Milliseconds() {
		const layout = "Mon Jan 02 15:04:05 UTC 2006"
		return nil, clientError("ExpiredIteratorException", fmt.Sprintf("Iterator expired. The iterator was created at time %s while right "+
			"now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			made.UTC().Format(layout), time.UnixMilli(now).UTC().Format(layout), iteratorLife.Milliseconds()))
	}
	s, err := k.find(streamRef{StreamName: it.stream})
	if err != nil {
		return nil, err
	}
	if it.Created != s.created.UnixMilli() || int(it.Shard) >= len(s.shards) {
		return nil, clientError("InvalidArgumentException", "Invalid ShardIterator.")
	}
	sh := s.shards[it.Shard]
	if !sh.limits.read(now) {
		return nil, s.throttled(sh)
	}
	return &getRecordsOutput{stream: s, shard: sh, next: it.Next, limit: limit, now: now}, nil
}

// getRecordsOutput reads the shard while it is written to the client, so that an answer of 10 MiB
// needs the memory of one record.
type getRecordsOutput struct {
	stream *stream
	shard  *shard
	next   uint64
	limit  int
	now    int64
}

// recordOutput has no EncryptionType, because the service leaves it out where nothing is encrypted
// (LocalStack recorded that on 2022-08-25, tests/aws/services/kinesis/test_kinesis.snapshot.json).
type recordOutput struct {
	SequenceNumber              string
	ApproximateArrivalTimestamp float64
	PartitionKey                string
	Data                        []byte
}

func (o *getRecordsOutput) writeJSON(w *bufio.Writer) error {
	count, bytes := 0, 0
	last := int64(0) // arrival of the last record returned
	encoder := json.NewEncoder(w)
	fmt.Fprint(w, `{"Records":[`)
	next, err := o.shard.log.read(o.now, o.next, func(rec stored) (bool, error) {
		size := len(rec.key) + len(rec.data)
		if count == o.limit || bytes+size > maxGetBytes {
			return false, nil
		}
		if count > 0 {
			fmt.Fprint(w, ",")
		}
		count, bytes, last = count+1, bytes+size, rec.arrival
		sequenceNumber := o.stream.sequence(o.shard, rec.index, rec.arrival/1000).String()
		return true, encoder.Encode(recordOutput{sequenceNumber, float64(rec.arrival) / 1000, string(rec.key), rec.data})
	})
	if err != nil {
		return err
	}
	o.shard.limits.returned(bytes)
	millis := int64(0)
	if next < o.shard.log.end() {
		millis = max(1, o.now-last) // 0 would say that nothing is left
	}
	_, err = fmt.Fprintf(w, `],"MillisBehindLatest":%d,"NextShardIterator":%q}`, millis, o.stream.iterator(o.shard, next, o.now))
	return err
}

// epochTime is a timestamp in the protocol's form: Unix seconds with a fraction. It is exact to the millisecond.
type epochTime struct{ time.Time }

func (t *epochTime) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("timestamp %s is no number of seconds", b)
	}
	t.Time = time.UnixMilli(int64(seconds*1000 + 0.5)).UTC()
	return nil
}
