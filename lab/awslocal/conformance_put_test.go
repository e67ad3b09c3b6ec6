package awslocal_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math/big"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

func putCases() map[string]conformanceCase {
	const mib = 1 << 20
	const invalid = "ValidationException: 1 validation error detected: Value at 'records"
	cases := map[string]conformanceCase{
		"PutRecordAnswersWithPlace": {want: "shard 0, 56 digits", run: func(p *probe) string {
			out, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{StreamName: p.stream, PartitionKey: aws.String("k"), Data: []byte("x")})
			if err != nil {
				return p.seen(err)
			}
			return fmt.Sprintf("shard %s, %d digits", shardNumber(*out.ShardId), len(*out.SequenceNumber))
		}},
		"PutsAnswerWithEncryption": {want: "NONE NONE", run: func(p *probe) string {
			one, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{StreamName: p.stream, PartitionKey: aws.String("k"), Data: []byte("x")})
			require.NoError(p.t, err)
			many, err := p.PutRecords(p.ctx(), &sdk.PutRecordsInput{StreamName: p.stream, Records: entries(1, entry("k", 1))})
			require.NoError(p.t, err)
			return fmt.Sprint(one.EncryptionType, " ", many.EncryptionType)
		}},
		"PutRecordTakesARN": {want: "ok", run: func(p *probe) string {
			_, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{StreamARN: aws.String(conformanceARN + *p.stream), PartitionKey: aws.String("k"), Data: []byte("x")})
			return p.seen(err)
		}},
		"SequenceNumbersGrowWithinShard": {want: "30 growing", run: func(p *probe) string {
			last, ok := new(big.Int).SetString(*p.shards[0].SequenceNumberRange.StartingSequenceNumber, 10)
			require.True(p.t, ok)
			var all []string
			for range 10 {
				all = append(all, p.put("k", "x")...)
			}
			for i, sequence := range append(all, p.put("k", numbered(11, 30)...)...) {
				n, ok := new(big.Int).SetString(sequence, 10)
				if !ok || len(sequence) != 56 || n.Cmp(last) <= 0 {
					return fmt.Sprintf("number %d, %s, does not follow %s", i+1, sequence, last)
				}
				last = n
			}
			return "30 growing"
		}},
		"SequenceNumbersAreUniqueInStream": {shards: 7, want: "100", run: func(p *probe) string {
			unique := map[string]bool{}
			for i := range 50 {
				for _, sequence := range p.put(fmt.Sprint("key ", i), "x", "y") {
					unique[sequence] = true
				}
			}
			return fmt.Sprint(len(unique))
		}},
		"KeepsOrderOfRequestWithinShard": {shards: 2, want: "1 2 3 4 5 6 7 8 9", run: func(p *probe) string {
			in := &sdk.PutRecordsInput{StreamName: p.stream}
			for i := 1; i < 10; i++ { // MD5 takes a to the first shard, b to the second
				in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String("b"), Data: []byte("elsewhere")},
					types.PutRecordsRequestEntry{PartitionKey: aws.String("a"), Data: []byte(fmt.Sprint(i))})
			}
			_, err := p.PutRecords(p.ctx(), in)
			require.NoError(p.t, err)
			return p.readFrom(trimHorizon)
		}},
		"KeepsDataAndKey": {want: "same", run: func(p *probe) string {
			data, key := []byte("\x00\xff\"<>&\u2028 é"), "ключ\"\\\n<&>\U0001F600"
			put, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{StreamName: p.stream, PartitionKey: &key, Data: data})
			require.NoError(p.t, err)
			out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: aws.String(p.mustIterate(trimHorizon))})
			require.NoError(p.t, err)
			require.Len(p.t, out.Records, 1)
			got := out.Records[0]
			if !bytes.Equal(data, got.Data) || key != *got.PartitionKey || *put.SequenceNumber != *got.SequenceNumber {
				return fmt.Sprintf("%q %q %s instead of %q %q %s", got.Data, *got.PartitionKey, *got.SequenceNumber, data, key, *put.SequenceNumber)
			}
			return "same"
		}},
		"PartitionKeysGoToShards": {shards: 7, want: strings.Join(routes(7), " "), run: func(p *probe) string {
			out, err := p.PutRecords(p.ctx(), &sdk.PutRecordsInput{StreamName: p.stream, Records: routedKeys()})
			require.NoError(p.t, err)
			var all []string
			for _, r := range out.Records {
				all = append(all, shardNumber(aws.ToString(r.ShardId)))
			}
			return strings.Join(all, " ")
		}},
		"BadHashKeyStoresNothing": {want: "stored nothing: InvalidArgumentException: Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. " +
			"Specified value was 340282366920938463463374607431768211456", run: func(p *probe) string {
			bad := entry("k", 1)
			bad.ExplicitHashKey = aws.String("340282366920938463463374607431768211456")
			refused := p.try(entry("k", 1), bad)
			return "stored nothing" + p.readFrom(trimHorizon) + ": " + refused
		}},
		"OverShardLimitFailsRecordsAlone": {limits: true, heavy: true, want: "ok\n1 ProvisionedThroughputExceededException: Rate exceeded for shard " +
			"shardId-000000000000 in stream STREAM under account 000000000000.", run: func(p *probe) string {
			return p.try(entry("k", 600<<10), entry("k", 600<<10), entry("k", 1))
		}},
		"RefusesSequenceNumberForOrderingOfNoDigits": {want: "ValidationException: 1 validation error detected: Value at 'sequenceNumberForOrdering' " +
			`failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\d{0,128})`, run: func(p *probe) string {
			_, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{
				StreamName: p.stream, PartitionKey: aws.String("k"), Data: []byte("x"), SequenceNumberForOrdering: aws.String("x"),
			})
			return p.seen(err)
		}},
	}
	for name, tc := range map[string]struct {
		records []types.PutRecordsRequestEntry
		want    string
	}{
		"TakesEmptyData":          {entries(1, entry("k", 0)), "ok"},
		"TakesMiBWithKey":         {entries(1, entry("k", mib-1)), "ok"},
		"TakesKeyOf256Characters": {entries(1, entry(strings.Repeat("é", 256), 1)), "ok"},
		"Takes500Records":         {entries(500, entry("k", 1)), "ok"},
		"TakesTenMiB":             {entries(10, entry("k", mib-1)), "ok"},
		"RefusesNoRecords":        {[]types.PutRecordsRequestEntry{}, invalid + "' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		"Refuses501Records":       {entries(501, entry("k", 1)), invalid + "' failed to satisfy constraint: Member must have length less than or equal to 500"},
		"RefusesEmptyKey":         {entries(1, entry("", 1)), invalid + ".1.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		"RefusesKeyOf257Characters": {
			entries(1, entry(strings.Repeat("k", 257), 1)),
			invalid + ".1.member.partitionKey' failed to satisfy constraint: Member must have length less than or equal to 256",
		},
		"RefusesDataOverMiB": {
			append(entries(1, entry("k", 1)), entry("k", mib+1)),
			invalid + ".2.member.data' failed to satisfy constraint: Member must have length less than or equal to 1048576",
		},
		"RefusesDataAndKeyOverMiB": {
			entries(1, entry("k", mib)), invalid + ".1.member.data' failed to satisfy constraint: Member must have length less than or equal to 1048576",
		},
		"RefusesMoreThanTenMiB": {append(entries(10, entry("k", mib-1)), entry("k", 0)), "InvalidArgumentException: Records size exceeds 10 MB limit"},
		"NamesTenViolations": {
			entries(11, entry("", 1)), "ValidationException: 10 validation errors detected: " + tenViolations(),
		},
		"NamesEveryBadRecord": {
			append(append(entries(1, entry("", 1)), entry("k", 1)), entry("", 1)), "ValidationException: 2 validation errors detected: " +
				"Value at 'records.1.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
				"Value at 'records.3.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1",
		},
	} {
		cases["PutRecords"+name] = conformanceCase{heavy: strings.Contains(name, "TenMiB"), want: tc.want, run: func(p *probe) string { return p.try(tc.records...) }}
	}
	const outside = "InvalidArgumentException: Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was "
	const pattern = "ValidationException: 1 validation error detected: Value at 'explicitHashKey' failed to satisfy constraint: " +
		`Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})`
	for hash, want := range map[string]string{
		"0": "0", "113427455640312821154458202477256070484": "0", // of 2^128/3, rounded down
		"113427455640312821154458202477256070485": "1", "226854911280625642308916404954512140969": "1",
		"226854911280625642308916404954512140970": "2", "340282366920938463463374607431768211455": "2",
		"340282366920938463463374607431768211456":  outside + "340282366920938463463374607431768211456",
		"999999999999999999999999999999999999999":  outside + "999999999999999999999999999999999999999",
		"1000000000000000000000000000000000000000": pattern, "-1": pattern, "01": pattern, "0x1": pattern, "": pattern,
	} {
		cases["HashKey."+hash] = conformanceCase{shards: 3, want: want, run: func(p *probe) string {
			out, err := p.PutRecord(p.ctx(), &sdk.PutRecordInput{
				StreamName: p.stream, PartitionKey: aws.String("k"), Data: []byte("x"), ExplicitHashKey: &hash,
			})
			if err != nil {
				return p.seen(err)
			}
			return shardNumber(*out.ShardId)
		}}
	}
	return cases
}

func tenViolations() string {
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("Value at 'records.%d.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1", i+1))
	}
	return strings.Join(all, "; ")
}

// routedKeys is 300 records of different keys.
func routedKeys() (records []types.PutRecordsRequestEntry) {
	for i := range 100 {
		for _, key := range []string{fmt.Sprint(i), fmt.Sprintf("6f1c3a52-aaaa-4bbb-8ccc-%012d", i), strings.Repeat("ключ \U0001F600", i%7+1) + fmt.Sprint(i)} {
			records = append(records, entry(key, 1))
		}
	}
	return records
}

// routes returns the shards of routedKeys. A key's shard is the one whose range holds the key's
// MD5.
func routes(shards int64) (numbers []string) {
	width := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(shards))
	for _, r := range routedKeys() {
		sum := md5.Sum([]byte(*r.PartitionKey))
		shard := new(big.Int).Div(new(big.Int).SetBytes(sum[:]), width).Int64()
		numbers = append(numbers, fmt.Sprint(min(shard, shards-1)))
	}
	return numbers
}
