package awslocal_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestRestartKeepsRecordsAndIterators(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s")}
	server, cfg := start(t, conf)
	c := client(t, cfg)
	seqs := c.put("1", "2")
	oldest, latest := c.iterator(types.ShardIteratorTypeTrimHorizon), c.iterator(types.ShardIteratorTypeLatest)
	require.NoError(t, server.Close())

	_, cfg = start(t, conf)
	c = client(t, cfg)
	require.Equal(t, numbered(1, 2), c.rest(oldest))
	require.Empty(t, c.rest(latest))
	later := c.put("3")
	require.Equal(t, numbered(3, 3), c.rest(latest))
	require.Equal(t, numbered(2, 3), c.rest(c.iterator(types.ShardIteratorTypeAfterSequenceNumber, from(seqs[0]))))
	require.Less(t, seqs[1], later[0])
}

func segments(t *testing.T, dir string) (paths []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "stream-s", shard0, "*.log"))
	require.NoError(t, err)
	return paths
}

func TestTornRecordIsCutOff(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]int64{"InHeader": 3, "InRecord": 15, "BeforeLastByte": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s")}
			server, cfg := start(t, conf)
			c := client(t, cfg)
			c.put("1")
			path := segments(t, conf.Dir)[0]
			whole, err := os.Stat(path)
			require.NoError(t, err)
			c.put("2")
			both, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, server.Close())
			end := whole.Size() + keep
			if keep < 0 {
				end = both.Size() + keep
			}
			require.NoError(t, os.Truncate(path, end))

			_, cfg = start(t, conf)
			c = client(t, cfg)
			c.put("3")
			require.Equal(t, []string{"1", "3"}, c.rest(c.iterator(types.ShardIteratorTypeTrimHorizon)))
		})
	}
}

// Cutting at damage would drop accepted records behind it without a word.
func TestDamageIsAnError(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s")}
	server, cfg := start(t, conf)
	client(t, cfg).put("one", "two", "three")
	require.NoError(t, server.Close())
	path := segments(t, conf.Dir)[0]
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := strings.Replace(string(content), "two", "TWO", 1)
	require.NoError(t, os.WriteFile(path, []byte(damaged), 0o600))
	_, err = awslocal.Open(conf)
	require.ErrorContains(t, err, "checksum does not match; remove the state folder to start anew")
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	conf := awslocal.Config{Dir: t.TempDir()}
	server, _ := start(t, conf)
	_, err := awslocal.Open(conf)
	require.ErrorContains(t, err, "another process uses "+conf.Dir)
	require.NoError(t, server.Close())
	again, err := awslocal.Open(conf)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s"), ShardBytes: limit}
	server, cfg := start(t, conf)
	c := client(t, cfg)
	first := c.put("the first")
	oldest := c.iterator(types.ShardIteratorTypeTrimHorizon)
	pad := strings.Repeat("x", 500)
	var all []string
	for i := range 40 {
		var batch []string
		for j := range 10 {
			batch = append(batch, fmt.Sprintf("%d-%s", i*10+j, pad))
		}
		c.put(batch...)
		all = append(all, batch...)
	}
	check := func(c streamClient) {
		left := c.rest(oldest)
		require.Greater(t, len(left), 80)
		require.Equal(t, all[len(all)-len(left):], left, "the newest stay, without a gap")
		require.Equal(t, left, c.rest(c.iterator(types.ShardIteratorTypeAtSequenceNumber, from(first[0]))), "a trimmed sequence number begins at the horizon")
		size := int64(0)
		for _, path := range segments(t, conf.Dir) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			size += info.Size()
		}
		require.Less(t, size, int64(limit+limit/8))
	}
	check(c)
	require.NoError(t, server.Close())
	_, cfg = start(t, conf)
	check(client(t, cfg))
}

func TestRetentionByAge(t *testing.T) {
	t.Parallel()
	clock := newClock()
	conf := awslocal.Config{Dir: t.TempDir(), Streams: oneShard("s"), ShardBytes: 1600, Now: clock.now} // 100 bytes a segment
	server, cfg := start(t, conf)
	c := client(t, cfg)
	c.put(strings.Repeat("old", 40))
	clock.pass(168 * time.Hour)
	seqs := c.put("new")
	trim := func(c streamClient) []string { return c.rest(c.iterator(types.ShardIteratorTypeTrimHorizon)) }
	require.Len(t, trim(c), 2)
	clock.pass(time.Millisecond)
	require.Equal(t, []string{"new"}, trim(c))
	clock.pass(169 * time.Hour)
	require.Empty(t, trim(c))
	require.NoError(t, server.Close())

	_, cfg = start(t, conf)
	c = client(t, cfg)
	require.Empty(t, trim(c))
	require.Less(t, seqs[0], c.put("newest")[0], "sequence numbers go on although every record is gone")
	require.Equal(t, []string{"newest"}, trim(c))
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server, err := awslocal.Open(awslocal.Config{Dir: dir, Streams: oneShard("s")})
	require.NoError(t, err)
	require.NoError(t, server.Close())
	for want, conf := range map[string]awslocal.Config{
		"Config.Dir is empty":           {},
		"Config.Streams[0]":             {Dir: dir, Streams: oneShard("a/b")},
		"Config.Streams[1]":             {Dir: dir, Streams: []awslocal.Stream{{Name: "s", Shards: 1}, {Name: "t"}}},
		"Config.Streams[0].Shards is 2": {Dir: dir, Streams: []awslocal.Stream{{Name: "s", Shards: 2}}},
		"Config.Buses[0]":               {Dir: dir, Buses: []string{""}},
		"Config.Queues[0]":              {Dir: dir, Queues: []string{"a.fifo"}},
	} {
		_, err := awslocal.Open(conf)
		require.ErrorContains(t, err, want)
	}
}

// killedDir names the folder to the child process of the next test.
const killedDir = "AWSLOCAL_TEST_KILLED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		os.Exit(putUntilKilled(dir))
	}
	os.Exit(m.Run())
}

// putUntilKilled prints a line for every batch that was answered. It returns only when something is wrong.
func putUntilKilled(dir string) int {
	server, err := awslocal.Open(awslocal.Config{Dir: dir, Streams: oneShard("s")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client := sdk.NewFromConfig(awslocal.SDKConfig(httptest.NewServer(server).URL))
	for i := 0; ; i += 50 {
		in := &sdk.PutRecordsInput{StreamName: aws.String("s")}
		for _, text := range numbered(i+1, i+50) {
			in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String("key"), Data: []byte(text)})
		}
		if out, err := client.PutRecords(context.Background(), in); err != nil || *out.FailedRecordCount > 0 {
			fmt.Fprintln(os.Stderr, "putting:", err)
			return 1
		}
		fmt.Fprintln(os.Stdout, "answered", i+50)
	}
}

func TestKillLosesNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), killedDir+"="+dir)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	answered := 0
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		n := 0
		if _, err := fmt.Sscanf(lines.Text(), "answered %d", &n); err == nil {
			answered = n
		}
		if answered == 1000 {
			require.NoError(t, child.Process.Kill()) // and read on, because what was answered meanwhile counts, too
		}
	}
	require.Error(t, child.Wait())
	require.GreaterOrEqual(t, answered, 1000)

	_, cfg := start(t, awslocal.Config{Dir: dir, Streams: oneShard("s")})
	c := client(t, cfg)
	got := c.rest(c.iterator(types.ShardIteratorTypeTrimHorizon))
	require.GreaterOrEqual(t, len(got), answered)
	require.Equal(t, numbered(1, len(got)), got)
	c.put("after")
	out, err := c.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: aws.String(c.iterator(types.ShardIteratorTypeLatest))})
	require.NoError(t, err)
	require.Empty(t, out.Records)
}
