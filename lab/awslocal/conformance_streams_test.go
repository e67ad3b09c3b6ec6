package awslocal_test

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"rds-outbox-demo/lab/awslocal"
)

const conformanceARN = "arn:aws:kinesis:" + awslocal.Region + ":" + awslocal.Account + ":stream/"

func streamCases() map[string]conformanceCase {
	cases := map[string]conformanceCase{
		"DescribeStreamSummaryGivesFacts": {shards: 3, want: conformanceARN + "STREAM STREAM ACTIVE 24h NONE 3 shards 0 consumers", run: func(p *probe) string {
			out, err := p.DescribeStreamSummary(p.ctx(), &sdk.DescribeStreamSummaryInput{StreamName: p.stream})
			if err != nil {
				return p.seen(err)
			}
			d := out.StreamDescriptionSummary
			return fmt.Sprint(*d.StreamARN, " ", *d.StreamName, " ", d.StreamStatus, " ", *d.RetentionPeriodHours, "h ", d.EncryptionType, " ",
				*d.OpenShardCount, " shards ", *d.ConsumerCount, " consumers")
		}},
		"SummaryGivesStreamMode": {want: "PROVISIONED", run: func(p *probe) string {
			out, err := p.DescribeStreamSummary(p.ctx(), &sdk.DescribeStreamSummaryInput{StreamName: p.stream})
			if err != nil || out.StreamDescriptionSummary.StreamModeDetails == nil {
				return "none"
			}
			return string(out.StreamDescriptionSummary.StreamModeDetails.StreamMode)
		}},
		"SummaryGivesRecordLimit": {want: "1024", run: func(p *probe) string {
			out, err := p.DescribeStreamSummary(p.ctx(), &sdk.DescribeStreamSummaryInput{StreamName: p.stream})
			if err != nil || out.StreamDescriptionSummary.MaxRecordSizeInKiB == nil {
				return "none"
			}
			return fmt.Sprint(*out.StreamDescriptionSummary.MaxRecordSizeInKiB)
		}},
		"SummaryTakesARN": {want: "STREAM", run: func(p *probe) string {
			out, err := p.DescribeStreamSummary(p.ctx(), &sdk.DescribeStreamSummaryInput{StreamARN: aws.String(conformanceARN + *p.stream)})
			if err != nil {
				return p.seen(err)
			}
			return *out.StreamDescriptionSummary.StreamName
		}},
		"ListShardsPages": {shards: 5, want: "0 1; 2 3; 4", run: func(p *probe) string {
			var pages []string
			for in := (&sdk.ListShardsInput{StreamName: p.stream, MaxResults: aws.Int32(2)}); ; {
				out, err := p.ListShards(p.ctx(), in)
				if err != nil {
					return p.seen(err)
				}
				pages = append(pages, shardNumbers(out.Shards))
				if out.NextToken == nil {
					return strings.Join(pages, "; ")
				}
				in = &sdk.ListShardsInput{NextToken: out.NextToken, MaxResults: aws.Int32(2)}
			}
		}},
		"ListShardsStartsBehind": {shards: 4, want: "2 3", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, ExclusiveStartShardId: aws.String("shardId-000000000001")})
		}},
		"ListShardsFiltersAfterShard": {shards: 4, want: "2 3", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, ShardFilter: &types.ShardFilter{
				Type: types.ShardFilterTypeAfterShardId, ShardId: aws.String("shardId-000000000001"),
			}})
		}},
		"ListShardsFiltersOpenShards": {shards: 3, want: "0 1 2", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}})
		}},
		"ListShardsOfNothing": {want: "InvalidArgumentException: Either NextToken or StreamName should be provided.", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{})
		}},
		"ListShardsOfNameAndToken": {want: "InvalidArgumentException: NextToken and StreamName cannot be provided together.", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, NextToken: aws.String("x")})
		}},
		"ListShardsOfForgedToken": {crashes: true, want: "InvalidArgumentException: NextToken is invalid.", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{NextToken: aws.String("x")})
		}},
		"ListShardsRefusesMaxResults0": {want: "ValidationException: 1 validation error detected: Value at 'maxResults' failed to satisfy constraint: " +
			"Member must have value greater than or equal to 1", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, MaxResults: aws.Int32(0)})
		}},
		"ListShardsRefusesMaxResults10001": {want: "ValidationException: 1 validation error detected: Value at 'maxResults' failed to satisfy constraint: " +
			"Member must have value less than or equal to 10000", run: func(p *probe) string {
			return p.list(&sdk.ListShardsInput{StreamName: p.stream, MaxResults: aws.Int32(10_001)})
		}},
		"ShardsBeginWithSequenceNumberOf56Digits": {shards: 2, want: "56 open; 56 open", run: func(p *probe) string {
			var all []string
			for _, s := range p.shards {
				state := "open"
				if s.SequenceNumberRange.EndingSequenceNumber != nil || s.ParentShardId != nil {
					state = "not open"
				}
				all = append(all, fmt.Sprint(len(*s.SequenceNumberRange.StartingSequenceNumber), " ", state))
			}
			return strings.Join(all, "; ")
		}},
		"CreateStreamTwice": {want: "ResourceInUseException: Stream STREAM under account 000000000000 already exists.", run: func(p *probe) string {
			return p.create(*p.stream, 1)
		}},
		"CreateStreamWithoutShards": {want: "ValidationException: 1 validation error detected: Value at 'shardCount' failed to satisfy constraint: " +
			"Member must have value greater than or equal to 1", run: func(p *probe) string { return p.create("other", 0) }},
		"CreateStreamWithBadName": {want: "ValidationException: 1 validation error detected: Value at 'streamName' failed to satisfy constraint: " +
			"Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+", run: func(p *probe) string { return p.create("a/b", 1) }},
		"CreateStreamWithLongName": {want: "ValidationException: 1 validation error detected: Value at 'streamName' failed to satisfy constraint: " +
			"Member must have length less than or equal to 128", run: func(p *probe) string { return p.create(strings.Repeat("n", 129), 1) }},
	}
	for _, n := range []int{1, 2, 3, 5, 7, 16} {
		cases[fmt.Sprintf("HashRangesOf%dShards", n)] = conformanceCase{shards: n, want: hashRanges(n, 0), run: func(p *probe) string {
			var all []string
			for _, s := range p.shards {
				all = append(all, fmt.Sprintf("%s %s-%s", *s.ShardId, *s.HashKeyRange.StartingHashKey, *s.HashKeyRange.EndingHashKey))
			}
			return strings.Join(all, "\n")
		}}
	}
	for name, call := range streamCalls {
		cases[name+"OfUnknownStream"] = conformanceCase{want: "ResourceNotFoundException: Stream absent under account 000000000000 not found.",
			run: func(p *probe) string { return p.seen(call(p, "absent")) }}
		cases[name+"OfBadStreamName"] = conformanceCase{want: "ValidationException: 1 validation error detected: Value at 'streamName' failed to " +
			"satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+", run: func(p *probe) string { return p.seen(call(p, "a/b")) }}
	}
	return cases
}

// streamCalls is every operation that names a stream.
var streamCalls = map[string]func(p *probe, stream string) error{
	"DescribeStreamSummary": func(p *probe, stream string) error {
		_, err := p.DescribeStreamSummary(p.ctx(), &sdk.DescribeStreamSummaryInput{StreamName: &stream})
		return err
	},
	"ListShards": func(p *probe, stream string) error {
		_, err := p.ListShards(p.ctx(), &sdk.ListShardsInput{StreamName: &stream})
		return err
	},
	"PutRecord": func(p *probe, stream string) error {
		_, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{StreamName: &stream, PartitionKey: aws.String("k"), Data: []byte("x")})
		return err
	},
	"PutRecords": func(p *probe, stream string) error {
		_, err := p.PutRecords(p.ctx(), &sdk.PutRecordsInput{StreamName: &stream, Records: entries(1, entry("k", 1))})
		return err
	},
	"GetShardIterator": func(p *probe, stream string) error {
		_, err := p.iterate(p.ctx(), latest, func(in *sdk.GetShardIteratorInput) { in.StreamName = &stream })
		return err
	},
}

// hashRanges divides 2^128 hashes, or a few less. The last shard gets the remainder.
func hashRanges(n int, less int64) string {
	hashes := new(big.Int).Lsh(big.NewInt(1), 128)
	width := new(big.Int).Sub(hashes, big.NewInt(less))
	width.Div(width, big.NewInt(int64(n)))
	var all []string
	for i := range n {
		first := new(big.Int).Mul(width, big.NewInt(int64(i)))
		last := new(big.Int).Add(first, width)
		if i == n-1 {
			last = hashes
		}
		all = append(all, fmt.Sprintf("shardId-%012d %s-%s", i, first, new(big.Int).Sub(last, big.NewInt(1))))
	}
	return strings.Join(all, "\n")
}

// shardNumbers shortens shardId-000000000012 to 12.
func shardNumbers(shards []types.Shard) string {
	var all []string
	for _, s := range shards {
		all = append(all, shardNumber(*s.ShardId))
	}
	return strings.Join(all, " ")
}

func shardNumber(id string) string {
	number := strings.TrimLeft(strings.TrimPrefix(id, "shardId-"), "0")
	if number == "" {
		return "0"
	}
	return number
}

func (p *probe) list(in *sdk.ListShardsInput) string {
	out, err := p.ListShards(p.ctx(), in)
	if err != nil {
		return p.seen(err)
	}
	return shardNumbers(out.Shards)
}

func (p *probe) create(name string, shards int32) string {
	_, err := p.CreateStream(p.ctx(), &sdk.CreateStreamInput{StreamName: &name, ShardCount: &shards})
	return p.seen(err)
}
