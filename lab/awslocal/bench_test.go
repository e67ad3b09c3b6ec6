package awslocal_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/awslocal/awstest"
)

// A record of our outbox as walrelay writes it has about this size.
const benchRecord = 700

func benchBatch(n int) []types.PutRecordsRequestEntry {
	var keys atomic.Int64
	records := make([]types.PutRecordsRequestEntry, n)
	for i := range records {
		records[i] = types.PutRecordsRequestEntry{
			PartitionKey: aws.String(fmt.Sprintf("aggregate-%d", keys.Add(1))), Data: bytes.Repeat([]byte("x"), benchRecord),
		}
	}
	return records
}

// The goal is 50,000 records a second on two cores, with the SDK's own share, and a heap that does
// not grow with the number of records. To see the latter, compare heap-MiB of different
// -benchtime=Nx.
func BenchmarkPutRecords(b *testing.B) {
	server, conf := awstest.Start(b, awslocal.Config{Streams: []awslocal.Stream{{Name: "s", Shards: 2}}})
	client := sdk.NewFromConfig(conf)
	batch := benchBatch(500)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			out, err := client.PutRecords(b.Context(), &sdk.PutRecordsInput{StreamName: aws.String("s"), Records: batch})
			if err != nil || *out.FailedRecordCount != 0 {
				b.Errorf("putting: %v", err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "heap-MiB")
	runtime.KeepAlive(server)
}

func BenchmarkGetRecords(b *testing.B) {
	_, conf := awstest.Start(b, awslocal.Config{Streams: []awslocal.Stream{{Name: "s", Shards: 1}}})
	client := sdk.NewFromConfig(conf)
	for range 40 {
		_, err := client.PutRecords(b.Context(), &sdk.PutRecordsInput{StreamName: aws.String("s"), Records: benchBatch(500)})
		require.NoError(b, err)
	}
	it, err := client.GetShardIterator(b.Context(), &sdk.GetShardIteratorInput{
		StreamName: aws.String("s"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(b, err)
	b.ReportAllocs()
	records := 0
	for b.Loop() {
		out, err := client.GetRecords(b.Context(), &sdk.GetRecordsInput{ShardIterator: it.ShardIterator})
		require.NoError(b, err)
		records += len(out.Records)
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}
