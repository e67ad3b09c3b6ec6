package awslocal_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"rds-outbox-demo/lab/awslocal"
)

// Several writers put at once, with failing entries and restarts in between. Each shard gives
// exactly what was answered with a sequence number, in the order of these numbers, whatever the
// size of the pages.
func TestShardsGiveExactlyWhatWasAccepted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "") //nolint:usetesting // t.TempDir is one folder per test, not per check
		require.NoError(rt, err)
		shards := rapid.IntRange(1, 4).Draw(rt, "shards")
		conf := awslocal.Config{Dir: dir, Streams: []awslocal.Stream{{Name: "s", Shards: shards}}}
		var mu sync.Mutex
		accepted := map[string]map[string]string{} // shard -> sequence number -> data
		lives := rapid.IntRange(1, 3).Draw(rt, "lives")
		var reader *sdk.Client
		stop := func() {}
		for life := range lives {
			stop()
			server, err := awslocal.Open(conf)
			require.NoError(rt, err)
			listener := httptest.NewServer(server)
			stop = func() { // not at the test's end, because hundreds of runs would keep their sockets until then
				require.NoError(rt, server.Close())
				listener.Close()
			}
			cfg := awslocal.SDKConfig(listener.URL)
			// With the SDK's retries, because smithy-go 1.28.8 at times closes a request's body
			// under net/http, and the connection with it.
			reader = sdk.NewFromConfig(cfg)
			cfg.RetryMaxAttempts = 1 // a put that is sent twice is two records
			writer := sdk.NewFromConfig(cfg)
			server.Faults().Add(awslocal.Fault{
				Kind: awslocal.EntryError, Code: "InternalFailure", Rate: 0.2, Seed: rapid.Uint64().Draw(rt, "seed"),
			})
			sizes := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 500), 1, 30), 1, 4).Draw(rt, "sizes")
			var writers sync.WaitGroup
			for w, sizes := range sizes {
				writers.Go(func() {
					in := &sdk.PutRecordsInput{StreamName: aws.String("s")}
					for i, size := range sizes {
						in.Records = append(in.Records, types.PutRecordsRequestEntry{
							PartitionKey: aws.String(fmt.Sprint(i % 7)), Data: fmt.Appendf(nil, "%d/%d/%d %0*d", life, w, i, size, 0),
						})
					}
					out, err := writer.PutRecords(t.Context(), in)
					if err != nil {
						t.Errorf("putting: %v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					for i, r := range out.Records {
						if r.ErrorCode == nil {
							if accepted[*r.ShardId] == nil {
								accepted[*r.ShardId] = map[string]string{}
							}
							accepted[*r.ShardId][*r.SequenceNumber] = string(in.Records[i].Data)
						}
					}
				})
			}
			writers.Wait()
		}
		defer stop()
		limit := int32(rapid.IntRange(1, 50).Draw(rt, "limit"))
		for shard := range shards {
			id := fmt.Sprintf("shardId-%012d", shard)
			got, last := map[string]string{}, ""
			it, err := reader.GetShardIterator(t.Context(), &sdk.GetShardIteratorInput{StreamName: aws.String("s"), ShardId: &id, ShardIteratorType: "TRIM_HORIZON"})
			require.NoError(rt, err)
			next := it.ShardIterator
			for {
				out, err := reader.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: next, Limit: &limit})
				require.NoError(rt, err)
				for _, r := range out.Records {
					require.Less(rt, last, *r.SequenceNumber)
					last = *r.SequenceNumber
					got[last] = string(r.Data)
				}
				if next = out.NextShardIterator; *out.MillisBehindLatest == 0 {
					break
				}
			}
			want := accepted[id]
			if want == nil {
				want = map[string]string{}
			}
			require.Equal(rt, want, got)
		}
	})
}
