package awslocal_test

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

const (
	trimHorizon   = types.ShardIteratorTypeTrimHorizon
	latest        = types.ShardIteratorTypeLatest
	atSequence    = types.ShardIteratorTypeAtSequenceNumber
	afterSequence = types.ShardIteratorTypeAfterSequenceNumber
	atTimestamp   = types.ShardIteratorTypeAtTimestamp
)

// position completes a request for an iterator.
type position = func(*sdk.GetShardIteratorInput)

func nothing(*sdk.GetShardIteratorInput) {}

// history is a shard with the records 1 and 2, and the records 3 and 4, put ten seconds later.
// Another ten seconds have passed since.
type history struct {
	*probe
	sequences []string
	middle    time.Time // between 2 and 3
}

func iteratorCases() map[string]conformanceCase {
	cases := map[string]conformanceCase{}
	for name, tc := range map[string]struct {
		want     string
		kind     types.ShardIteratorType
		position func(h history) position
	}{
		"TrimHorizonBeginsAtOldest":     {"1 2 3 4; 5", trimHorizon, func(history) position { return nothing }},
		"LatestBeginsBehindNewest":      {"; 5", latest, func(history) position { return nothing }},
		"AtSequenceNumberIncludesIt":    {"2 3 4; 5", atSequence, func(h history) position { return from(h.sequences[1]) }},
		"AtFirstSequenceNumber":         {"1 2 3 4; 5", atSequence, func(h history) position { return from(h.sequences[0]) }},
		"AfterSequenceNumberExcludesIt": {"3 4; 5", afterSequence, func(h history) position { return from(h.sequences[1]) }},
		"AfterNewestWaits":              {"; 5", afterSequence, func(h history) position { return from(h.sequences[3]) }},
		"AtStartOfShard":                {"1 2 3 4; 5", atSequence, func(h history) position { return from(h.beginning()) }},
		"AfterStartOfShard":             {"1 2 3 4; 5", afterSequence, func(h history) position { return from(h.beginning()) }},
		"AtTimestampBetween":            {"3 4; 5", atTimestamp, func(h history) position { return at(h.middle) }},
		"AtTimestampBeforeAll":          {"1 2 3 4; 5", atTimestamp, func(h history) position { return at(h.middle.Add(-time.Hour)) }},
		"AtTimestampAfterAll":           {"; 5", atTimestamp, func(h history) position { return at(h.middle.Add(time.Minute)) }},
		"AtTimestampOfARecord":          {"3 4; 5", atTimestamp, func(h history) position { return at(h.arrival(h.sequences[2])) }},
		"AtTimestampJustBehind":         {"3 4; 5", atTimestamp, func(h history) position { return at(h.arrival(h.sequences[1]).Add(time.Millisecond)) }},
	} {
		cases["Iterator"+name] = conformanceCase{movesClock: true, want: tc.want, run: func(p *probe) string {
			h := history{probe: p, sequences: p.put("k", "1", "2")}
			p.pass(5 * time.Second)
			h.middle = p.now()
			p.pass(5 * time.Second)
			h.sequences = append(h.sequences, p.put("k", "3", "4")...)
			p.pass(2 * time.Minute)
			return p.readTwice(tc.kind, tc.position(h))
		}}
	}
	for name, tc := range map[string]struct {
		kind     types.ShardIteratorType
		position func(p *probe) position
	}{
		"TrimHorizon": {trimHorizon, func(*probe) position { return nothing }},
		"Latest":      {latest, func(*probe) position { return nothing }},
		"AtStart":     {atSequence, func(p *probe) position { return from(p.beginning()) }},
		"AfterStart":  {afterSequence, func(p *probe) position { return from(p.beginning()) }},
		"AtTimestamp": {atTimestamp, func(p *probe) position { return at(p.now().Add(-100 * time.Millisecond)) }},
	} {
		cases["EmptyShard"+name] = conformanceCase{movesClock: true, want: "; 5", run: func(p *probe) string {
			p.pass(time.Second)
			return p.readTwice(tc.kind, tc.position(p))
		}}
	}
	cases["IteratorAfterSequenceNumberNotGivenYet"] = conformanceCase{want: "InvalidArgumentException", run: func(p *probe) string {
		_, err := p.iterate(p.ctx(), afterSequence, from(following(p.put("a", "1")[0])))
		code, _, _ := strings.Cut(p.seen(err), ":")
		return code
	}}
	for name, c := range iteratorErrorCases() {
		cases["Iterator"+name] = c
	}
	return cases
}

func iteratorErrorCases() map[string]conformanceCase {
	const either = "InvalidArgumentException: Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or " +
		"(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified "
	const sequencePattern = `ValidationException: 1 validation error detected: Value at 'startingSequenceNumber' failed to satisfy constraint: ` +
		`Member must satisfy regular expression pattern: 0|([1-9]\d{0,128})`
	const shardPattern = `ValidationException: 1 validation error detected: Value at 'shardId' failed to satisfy constraint: ` +
		`Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+`
	const used = " used in GetShardIterator on shard shardId-000000000000 in stream STREAM under account 000000000000 is invalid"
	cases := map[string]conformanceCase{}
	fixed := func(p position) func(*probe) position { return func(*probe) position { return p } }
	ofRecord := func(key string) func(p *probe) position {
		return func(p *probe) position { return from(p.put(key, "1")[0]) }
	}
	for name, tc := range map[string]struct {
		want     string
		kind     types.ShardIteratorType
		position func(p *probe) position
	}{
		"AtNoSequenceNumber":           {either + "AT_SEQUENCE_NUMBER and no StartingSequenceNumber.", atSequence, fixed(nothing)},
		"AfterNoSequenceNumber":        {either + "AFTER_SEQUENCE_NUMBER and no StartingSequenceNumber.", afterSequence, fixed(nothing)},
		"LatestAndSequenceNumber":      {either + "LATEST and also a StartingSequenceNumber.", latest, ofRecord("a")},
		"TrimHorizonAndSequenceNumber": {either + "TRIM_HORIZON and also a StartingSequenceNumber.", trimHorizon, ofRecord("a")},
		"TimestampAndSequenceNumber": {either + "AT_TIMESTAMP and also a StartingSequenceNumber.", atTimestamp, func(p *probe) position {
			sequence, when := p.put("a", "1")[0], p.now().Add(-time.Second)
			return func(in *sdk.GetShardIteratorInput) { in.StartingSequenceNumber, in.Timestamp = &sequence, &when }
		}},
		"AtNoTimestamp": {
			"InvalidArgumentException: Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.",
			atTimestamp, fixed(nothing),
		},
		"AtFutureTimestamp": {
			"InvalidArgumentException: The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: N, currentTimestampInMillis: N",
			atTimestamp, func(p *probe) position { return at(p.now().Add(time.Hour)) },
		},
		"OfUnknownType": {
			"ValidationException: 1 validation error detected: Value at 'shardIteratorType' failed to satisfy constraint: " +
				"Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]", "NEWEST", fixed(nothing),
		},
		"AtSequenceNumberOfOtherShard": {
			"InvalidArgumentException: Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000",
			atSequence, ofRecord("b"),
		},
		"AtSequenceNumberOfOtherStream": {
			"InvalidArgumentException: StartingSequenceNumber 49594189147623985939251953501666965394405037144469929986" + used + " because it did not come from this stream.",
			atSequence, fixed(from("49594189147623985939251953501666965394405037144469929986")),
		},
		// The sequence number of the shard 1 that the AWS CLI's manual shows (awscli/examples/kinesis/describe-stream.rst).
		"AtSequenceNumberOfAWS": {
			"InvalidArgumentException: Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000",
			atSequence, fixed(from("49600871682979337187563555549332609155523708941634633746")),
		},
		"AtSequenceNumberOfNoDigits": {sequencePattern, atSequence, fixed(from("newest"))},
		"AtSequenceNumberWithZero":   {sequencePattern, atSequence, fixed(from("012"))},
		"AtEmptySequenceNumber":      {sequencePattern, atSequence, fixed(from(""))},
		"AtNonsense": {
			"InvalidArgumentException: StartingSequenceNumber 9999999999999999999999999999999999999999999999999999999999999" + used + ".",
			atSequence, fixed(from("9999999999999999999999999999999999999999999999999999999999999")),
		},
		"OfUnknownShard": {
			"ResourceNotFoundException: Shard shardId-000000000007 in stream STREAM under account 000000000000 does not exist",
			latest, fixed(inShard("shardId-000000000007")),
		},
		"OfShardWithoutNumber": {
			"ResourceNotFoundException: Could not find shard shardId-x in stream STREAM under account 000000000000.",
			latest, fixed(inShard("shardId-x")),
		},
		"OfShardWithShortID": {"ok", latest, fixed(inShard("shardId-1"))},
		"OfShardWithoutName": {"ok", latest, fixed(inShard("0"))},
		"OfShardWithBadName": {shardPattern, latest, fixed(inShard("shard 0"))},
		"OfShardWithLongName": {
			"ValidationException: 1 validation error detected: Value at 'shardId' failed to satisfy constraint: Member must have length less than or equal to 128",
			latest, fixed(inShard(strings.Repeat("s", 129))),
		},
		"ByARN": {"ok", latest, func(p *probe) position {
			return func(in *sdk.GetShardIteratorInput) {
				in.StreamName, in.StreamARN = nil, aws.String(conformanceARN+*p.stream)
			}
		}},
	} {
		cases[name] = conformanceCase{shards: 2, want: tc.want, run: func(p *probe) string {
			_, err := p.iterate(p.ctx(), tc.kind, tc.position(p))
			return varying.ReplaceAllString(p.seen(err), "$1: N")
		}}
	}
	return cases
}

var varying = regexp.MustCompile(`(\w+Millis): \d+`)

// readTwice reads to the end, puts the record 5 and reads on.
func (p *probe) readTwice(kind types.ShardIteratorType, position position) string {
	ctx, cancel := context.WithTimeout(p.ctx(), p.patience)
	defer cancel()
	it, err := p.iterate(ctx, kind, position)
	if err != nil {
		return p.seen(err)
	}
	before, next := p.read(it)
	p.put("k", "5")
	behind, _ := p.read(next)
	return before + "; " + behind
}

func (p *probe) beginning() string { return *p.shards[0].SequenceNumberRange.StartingSequenceNumber }

// arrival is the time of the record with the sequence number.
func (p *probe) arrival(sequence string) time.Time {
	out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: aws.String(p.mustIterate(trimHorizon))})
	require.NoError(p.t, err)
	for _, r := range out.Records {
		if *r.SequenceNumber == sequence {
			return *r.ApproximateArrivalTimestamp
		}
	}
	require.Fail(p.t, "record "+sequence+" is not there")
	return time.Time{}
}
