package outboxctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

const (
	// maxLogBytes is how much of a file's end is read: several thousand lines.
	maxLogBytes = 4 << 20
	// recent is how old a line may be. What is over must not warn for ever.
	recent = 15 * time.Minute
	// latencies are the events that percentiles are reckoned of.
	latencies = 1000
	// slowCommitToBus is what CommitToBusAlarm (infra/consumer.yml) fires at.
	slowCommitToBus = time.Minute
	// maxSlotAge is three of the relay's measurements.
	maxSlotAge = 3 * time.Minute
)

// metricLine is what the doctor reads of a line; docs/operations.md#log-lines names all members. Msg says which of them a line has.
type metricLine struct {
	Time    time.Time `json:"time"`
	Message string    `json:"msg"`

	Published int       `json:"published"` // batch
	Retried   int       `json:"retried"`   // batch, put
	Parked    int       `json:"parked"`
	ToBus     []float64 `json:"commit_to_bus_seconds"`

	Put      int   `json:"put"` // put
	Lag      int64 `json:"slot_lag_bytes"`
	Retained int64 `json:"retained_wal_bytes"`

	Duplicates int `json:"duplicates"` // car stats
	Gaps       int `json:"gaps"`
	Late       int `json:"late"`
	Failed     int `json:"failed"`
}

// metrics makes the checks of what consumer, subscriber and relay say of themselves. On AWS the same lines are metrics in CloudWatch.
func (d doctor) metrics() (checks []check) {
	if len(d.MetricsLogs) == 0 {
		return []check{{"metrics", stateSkip, "METRICS_LOGS is not set: on AWS the stage's dashboard and alarms have them", ""}}
	}
	lines := map[string][]metricLine{}
	for _, path := range d.MetricsLogs {
		content, err := lastLines(path, maxLogBytes)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			checks = append(checks, check{"metrics", stateSkip, "no file " + path, ""})
		case err != nil:
			checks = append(checks, broken("metrics", err))
		}
		for text := range bytes.Lines(content) {
			var line metricLine
			// A panic's text may stand between the lines, and is no business of this check.
			if json.Unmarshal(text, &line) == nil && d.now().Sub(line.Time) <= recent {
				lines[line.Message] = append(lines[line.Message], line)
			}
		}
	}
	for _, c := range []struct {
		name string
		make func(lines []metricLine) check
		from []metricLine
	}{
		{"commit to bus", commitToBus, lines["batch"]},
		{"consumer", consumerCounts, lines["batch"]},
		{"subscriber", subscriberCounts, lines["car stats"]},
		{"relay", func(slots []metricLine) check { return d.relay(slots[len(slots)-1], lines["put"]) }, lines["slot"]},
	} {
		made := check{State: stateSkip, Finding: fmt.Sprintf("no line of it in the last %d minutes", int(recent.Minutes()))}
		if len(c.from) > 0 {
			made = c.make(c.from)
		}
		made.Name = c.name
		checks = append(checks, made)
	}
	return checks
}

// lastLines returns the whole lines among the last bytes of a file. Both ends may be half a line: the one is cut off here, the other is
// being written.
func lastLines(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the file that the operator names
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-limit)
	content, err := io.ReadAll(io.NewSectionReader(f, from, limit))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if from > 0 {
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	return content[:bytes.LastIndexByte(content, '\n')+1], nil
}

func commitToBus(batches []metricLine) check {
	var seconds []float64
	for _, batch := range slices.Backward(batches) {
		if len(seconds) >= latencies {
			break
		}
		seconds = append(seconds, batch.ToBus...)
	}
	if len(seconds) == 0 {
		return check{State: stateSkip, Finding: "no event with a time of commit" + since(batches)}
	}
	slices.Sort(seconds)
	percentile := func(p int) float64 { return seconds[(len(seconds)*p+99)/100-1] }
	c := check{State: stateOK, Finding: fmt.Sprintf("p50 %.2f s, p99 %.2f s of the last %s", percentile(50), percentile(99), count(len(seconds), "event")),
		Do: "see commit-to-bus in docs/operations.md: which hop is slow?"}
	if percentile(99) >= slowCommitToBus.Seconds() {
		c.State = stateWarn
	}
	return c
}

func consumerCounts(batches []metricLine) check {
	var published, retried, parked int
	for _, batch := range batches {
		published, retried, parked = published+batch.Published, retried+batch.Retried, parked+batch.Parked
	}
	c := check{State: stateOK, Finding: fmt.Sprintf("published %d, retried %d, parked %d%s", published, retried, parked, since(batches))}
	switch {
	case parked > 0:
		c.State, c.Do = stateWarn, "outboxctl redrive list"
	case mostly(retried, published):
		c.State, c.Do = stateWarn, "the bus refuses entries: see the error of the last batch, and consumer-lag in docs/operations.md"
	}
	return c
}

func subscriberCounts(batches []metricLine) check {
	var duplicates, gaps, late, failed int
	for _, batch := range batches {
		duplicates, gaps, late, failed = duplicates+batch.Duplicates, gaps+batch.Gaps, late+batch.Late, failed+batch.Failed
	}
	c := check{State: stateOK, Finding: fmt.Sprintf("carstats: duplicates %d, gaps %d, late %d%s", duplicates, gaps, late, since(batches))}
	if failed > 0 { // the others are what a subscriber has to live with
		c.State, c.Do = stateWarn, "see car-stats-lag in docs/operations.md"
		c.Finding += fmt.Sprintf("; messages failed %s", count(failed, "time"))
	}
	return c
}

// relay is about walrelay's last measurement of its slot, and what it has put on the stream.
func (d doctor) relay(slot metricLine, puts []metricLine) check {
	var put, retried int
	for _, call := range puts {
		put, retried = put+call.Put, retried+call.Retried
	}
	age := d.now().Sub(slot.Time).Round(time.Second)
	c := check{State: stateOK, Finding: fmt.Sprintf("%s of WAL not confirmed and %s retained, %s ago; put %d, retried %d%s",
		size(slot.Lag), size(slot.Retained), age, put, retried, since(puts))}
	switch {
	case age > maxSlotAge:
		c.State, c.Do = stateWarn, "walrelay measures once a minute: see whether it runs"
	case mostly(retried, put):
		c.State, c.Do = stateWarn, "the stream refuses records: see stream-throttled in docs/operations.md"
	}
	return c
}

// mostly tells whether more than one in ten was sent again.
func mostly(retried, sent int) bool { return 10*retried > sent }

// since says from when on the counts are: of a file that is young, or cut, that is less than the time that is looked at.
func since(lines []metricLine) string {
	if len(lines) == 0 {
		return ""
	}
	return " since " + lines[0].Time.UTC().Format("15:04:05Z")
}
