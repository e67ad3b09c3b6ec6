package awslocal_test

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

const expired = "ExpiredIteratorException: Iterator expired. The iterator was created at time TIME while right now it is TIME which is further " +
	"in the future than the tolerated delay of 300000 milliseconds."

var expiry = regexp.MustCompile(`\w{3} \w{3} \d{2} \d{2}:\d{2}:\d{2} UTC \d{4}`)

func getCases() map[string]conformanceCase {
	cases := map[string]conformanceCase{
		"GetRecordsStopsAtLimit": {want: "1 2; 3 4 5", run: func(p *probe) string {
			p.put("k", numbered(1, 5)...)
			page, next := p.page(p.mustIterate(trimHorizon), 2)
			rest, _ := p.read(next)
			return page + "; " + rest
		}},
		"GetRecordsTakesLimit10000": {want: "1", run: func(p *probe) string {
			p.put("k", "1")
			page, _ := p.page(p.mustIterate(trimHorizon), 10_000)
			return page
		}},
		"GetRecordsOfSameIteratorTwice": {want: "1 2 3; 1 2 3", run: func(p *probe) string {
			p.put("k", numbered(1, 3)...)
			it := p.mustIterate(trimHorizon)
			first, _ := p.read(it)
			second, _ := p.read(it)
			return first + "; " + second
		}},
		"GetRecordsOfItsShardOnly": {shards: 2, want: "1; 2", run: func(p *probe) string {
			p.put("a", "1")
			p.put("b", "2")
			return p.readFrom(trimHorizon) + "; " + p.readFrom(trimHorizon, inShard("shardId-000000000001"))
		}},
		"NextIteratorWaitsForRecords": {want: "; ; 1 2", run: func(p *probe) string {
			first, next := p.read(p.mustIterate(latest))
			second, next := p.read(next)
			p.put("k", "1", "2")
			third, _ := p.read(next)
			return first + "; " + second + "; " + third
		}},
		"RecordsCarryArrivalAndNoEncryption": {want: "now, ", run: func(p *probe) string {
			p.put("k", "1")
			out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: aws.String(p.mustIterate(trimHorizon))})
			require.NoError(p.t, err)
			when := "now"
			if age := p.now().Sub(*out.Records[0].ApproximateArrivalTimestamp); age < -time.Second || age > time.Minute {
				when = age.String()
			}
			return when + ", " + string(out.Records[0].EncryptionType)
		}},
		"MillisBehindLatestIsZeroAtTip": {want: "0 0", run: func(p *probe) string {
			it := p.mustIterate(trimHorizon)
			empty, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: &it})
			require.NoError(p.t, err)
			p.put("k", "1")
			all, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: &it})
			require.NoError(p.t, err)
			return fmt.Sprint(*empty.MillisBehindLatest, " ", *all.MillisBehindLatest)
		}},
		"MillisBehindLatestIsPositiveBeforeTip": {movesClock: true, want: "behind", run: func(p *probe) string {
			p.put("k", "1")
			p.pass(3 * time.Second)
			p.put("k", "2")
			return p.behind()
		}},
		"MillisBehindLatestIsPositiveWithinBatch": {want: "behind", run: func(p *probe) string {
			p.put("k", "1", "2")
			return p.behind()
		}},
		"IteratorLivesFiveMinutes": {movesClock: true, want: "1", run: func(p *probe) string {
			p.put("k", "1")
			it := p.mustIterate(trimHorizon)
			p.pass(4 * time.Minute) // the rest is for a busy machine, whose own time passes as well
			data, _ := p.read(it)
			return data
		}},
		"IteratorExpires": {movesClock: true, want: expired, run: func(p *probe) string {
			it := p.mustIterate(trimHorizon)
			p.pass(301 * time.Second)
			data, _ := p.read(it)
			return expiry.ReplaceAllString(data, "TIME")
		}},
		"NextIteratorExpires": {movesClock: true, want: expired, run: func(p *probe) string {
			_, next := p.read(p.mustIterate(trimHorizon))
			p.pass(301 * time.Second)
			data, _ := p.read(next)
			return expiry.ReplaceAllString(data, "TIME")
		}},
		"RecordsGoAfterRetention": {movesClock: true, want: "; 2", run: func(p *probe) string {
			p.put("k", "1")
			p.pass(25 * time.Hour)
			gone := p.readFrom(trimHorizon)
			p.put("k", "2")
			return gone + "; " + p.readFrom(trimHorizon)
		}},
	}
	const limit = "ValidationException: 1 validation error detected: Value at 'limit' failed to satisfy constraint: "
	for name, tc := range map[string]struct {
		limit int32
		want  string
	}{
		"0":        {0, limit + "Member must have value greater than or equal to 1"},
		"Negative": {-1, limit + "Member must have value greater than or equal to 1"},
		"10001":    {10_001, "InvalidArgumentException: Limit must be at most 10000."},
	} {
		cases["GetRecordsRefusesLimit"+name] = conformanceCase{want: tc.want, run: func(p *probe) string {
			page, _ := p.page(p.mustIterate(trimHorizon), tc.limit)
			return page
		}}
	}
	for name, tc := range map[string]struct{ iterator, want string }{
		"Empty": {"", "ValidationException: 1 validation error detected: Value at 'shardIterator' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		"Forged": {"AAAAAAAAAAGVuDR2Yp4v8sFVd0l8NaQ4Fe7c3d7SRdtlUZ6Jl8wLkPDSHm3DW4bU4gfs9fKmmTfbJtZmXlLyEfpc8BBuHCq0TQmUqH5x7vx3cNjM0Xl2aDWz" +
			"cXRmQ0FhK1pZTnBqZ1ZvT2dJcFhYYjhHSjR1b3Y=", "InvalidArgumentException: Invalid ShardIterator."},
		"NoBase64": {"not base64!", "InvalidArgumentException: Invalid ShardIterator."},
		"Longer512": {
			strings.Repeat("A", 516), "ValidationException: 1 validation error detected: Value at 'shardIterator' failed to satisfy constraint: Member must have length less than or equal to 512",
		},
	} {
		cases["GetRecordsOfIterator"+name] = conformanceCase{want: tc.want, run: func(p *probe) string {
			data, _ := p.read(tc.iterator)
			return data
		}}
	}
	return cases
}

// page is one GetRecords.
func (p *probe) page(iterator string, limit int32) (data, next string) {
	out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: &iterator, Limit: &limit})
	if err != nil {
		return p.seen(err), ""
	}
	var all []string
	for _, r := range out.Records {
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " "), *out.NextShardIterator
}

// behind reads the first record and tells whether more are announced.
func (p *probe) behind() string {
	out, err := p.GetRecords(p.ctx(), &sdk.GetRecordsInput{ShardIterator: aws.String(p.mustIterate(trimHorizon)), Limit: aws.Int32(1)})
	require.NoError(p.t, err)
	if *out.MillisBehindLatest == 0 {
		return "caught up"
	}
	return "behind"
}

func inShard(id string) position {
	return func(in *sdk.GetShardIteratorInput) { in.ShardId = &id }
}

// following is the number that the next record of the shard would get.
func following(sequence string) string {
	n, _ := new(big.Int).SetString(sequence, 10)
	return n.Add(n, new(big.Int).Lsh(big.NewInt(1), 80)).String()
}
