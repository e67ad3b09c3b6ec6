package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"rds-outbox-demo/lab/lambdarun"
)

// growth sends 10^5, 10^6 and 5*10^6 events through the programs of relay and consumer, each with nothing behind it, to see that neither
// gets slower or larger. The first is measured in every round, the others, which take minutes, once.
func growth(ctx context.Context, e *environment) ([]Row, error) {
	sizes := []int{100_000, 1_000_000, 5_000_000}
	if e.Quick {
		sizes = []int{10_000, 50_000, 100_000}
	}
	sink, err := newSink(0)
	if err != nil {
		return nil, err
	}
	defer sink.close()
	// One for all: who wants fewer rows of it stops there.
	backlog, err := e.newBacklog(ctx, slices.Max(sizes), 100)
	if err != nil {
		return nil, err
	}
	defer backlog.close()
	relayed, err := e.grow(ctx, "relay", sizes, func(ctx context.Context, events int) (rate, memory float64, err error) {
		part := *backlog
		part.rows = events
		run, err := e.runRelay(ctx, &part, sink)
		return run.steady, run.memory, err
	})
	if err != nil {
		return nil, err
	}
	program, err := e.buildConsumer(ctx)
	if err != nil {
		return nil, err
	}
	bus, err := newBus(0)
	if err != nil {
		return nil, err
	}
	defer bus.close()
	consumed, err := e.grow(ctx, "consumer", sizes, func(ctx context.Context, events int) (rate, memory float64, err error) {
		return e.runConsumer(ctx, program, bus, events)
	})
	return append(relayed, consumed...), err
}

// grow measures each size: events/s beside the smallest's, and MB.
func (e *environment) grow(ctx context.Context, who string, sizes []int, run func(context.Context, int) (rate, memory float64, err error)) (rows []Row, err error) {
	for i, size := range sizes {
		rounds := e.Rounds
		if i > 0 {
			rounds = 1
		}
		name := figure(float64(size), "events")
		rate, memory := Row{What: name + ", " + who, Unit: "events/s"}, Row{What: "memory of it at most", Unit: "MB"}
		for range rounds {
			r, m, err := run(ctx, size)
			if err != nil {
				return nil, err
			}
			rate.Ours, memory.Ours = append(rate.Ours, r), append(memory.Ours, m)
		}
		if i > 0 {
			rate.Limit, rate.LimitName = rows[0].Ours, "of "+figure(float64(sizes[0]), "events")
			rate = rate.atLeast(0.85).bounded(0.5)
		}
		rows = append(rows, rate, memory.atMost(64).bounded(80))
	}
	return rows, nil
}

// buildConsumer builds the Lambda as it is deployed, but for this machine.
func (e *environment) buildConsumer(ctx context.Context) (program string, err error) {
	if program, err = filepath.Abs(filepath.Join(e.Dir, "consumer")); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "go", "build", "-tags", "lambda.norpc", "-trimpath", "-o", program, "./handlers/cdcconsumer/lambda")
	command.Dir, command.Env = e.Root, append(command.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the consumer: %w: %s", err, out)
	}
	return program, nil
}

// runConsumer invokes the Lambda's program as Lambda does, with one batch of 100 after another: events/s, and MB at most.
func (e *environment) runConsumer(ctx context.Context, program string, bus *bus, events int) (rate, memory float64, err error) {
	batches, err := marshalBatches()
	if err != nil {
		return 0, 0, err
	}
	log, err := os.Create(filepath.Join(e.Dir, "consumer.log"))
	if err != nil {
		return 0, 0, err
	}
	defer log.Close()
	command := exec.CommandContext(ctx, program)
	command.Stdout, command.Stderr = log, log
	command.Env = []string{
		"AWS_LAMBDA_FUNCTION_NAME=bench", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local",
		"AWS_SECRET_ACCESS_KEY=local", "AWS_ENDPOINT_URL=" + bus.url, "EVENT_BUS_NAME=bench", "FAILURE_QUEUE_URL=" + bus.url + "/failures",
	}
	function, err := lambdarun.Start(command)
	if err != nil {
		return 0, 0, err
	}
	defer function.Close()
	var first time.Time // when the function asked for work
	for n := 0; n*batchSize < events; n++ {
		answer, err := function.Invoke(ctx, batches[n%len(batches)], time.Minute)
		if err == nil {
			err = publishedAll(answer)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("invoking the consumer, whose log is %s: %w", log.Name(), err)
		}
		if n == 0 {
			first = answer.Asked
		}
	}
	return float64(events) / time.Since(first).Seconds(), peakMemory(function.PID()), nil
}

// marshalBatches returns events of 10,000 aggregates as batches. The consumer may get them again and
// again, because it keeps nothing by which it could know them.
func marshalBatches() (batches [][]byte, err error) {
	const aggregates = 10_000
	for batch := range slices.Chunk(batchOf(aggregates, aggregates).Records, batchSize) {
		data, err := json.Marshal(events.KinesisEvent{Records: batch})
		if err != nil {
			return nil, err
		}
		batches = append(batches, data)
	}
	return batches, nil
}

// publishedAll returns an error unless the consumer has published the whole batch.
func publishedAll(answer lambdarun.Answer) error {
	var failures events.KinesisEventResponse
	if err := json.Unmarshal(answer.Body, &failures); err != nil || answer.Failed || len(failures.BatchItemFailures) > 0 {
		return fmt.Errorf("the consumer has not published the batch: %s", answer.Body)
	}
	return nil
}

// peakMemory is the most resident memory that a running process had, in MB; 0 where only its end tells. What getrusage tells of a child
// is no use: Linux counts what its parent had when it started it.
func peakMemory(pid int) float64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kilobytes * 1024 / 1e6
		}
	}
	return 0
}
