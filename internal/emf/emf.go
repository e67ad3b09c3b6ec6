// Package emf makes metrics of log lines. CloudWatch Logs reads a JSON line with a member _aws (the embedded metric format) and keeps the
// members that it names as metrics. So one line per batch is both, and no call and no agent is needed.
//
// In: the names and units of members of a line. Out: its attribute _aws. The line must come from slog's JSON handler and have the
// members at its top level, the dimensions', too.
//
// The format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
package emf

import (
	"log/slog"
	"slices"
	"time"
)

// Namespace of every metric.
const Namespace = "rds-outbox-demo"

// maxValues is how many values a member may have.
const maxValues = 100

// Metric names a member of the line, which is a number or a list of up to 100, of which CloudWatch counts each. A metric must have a value,
// because an empty array makes the whole line invalid.
type Metric struct {
	Name string `json:"Name"`
	Unit Unit   `json:"Unit"`
}

// Unit as CloudWatch spells it.
type Unit string

// The units in use.
const (
	Count   Unit = "Count"
	Seconds Unit = "Seconds"
	Bytes   Unit = "Bytes"
)

type directive struct {
	Namespace  string     `json:"Namespace"`
	Dimensions [][]string `json:"Dimensions"`
	Metrics    []Metric   `json:"Metrics"`
}

// Directive returns the attribute that makes metrics of the line's members. dimensions names the members that together tell apart who
// measured, such as FunctionName. An alarm has to name all of them.
func Directive(at time.Time, dimensions []string, metrics ...Metric) slog.Attr {
	return slog.Group("_aws",
		slog.Int64("Timestamp", at.UnixMilli()),
		slog.Any("CloudWatchMetrics", []directive{{Namespace, [][]string{dimensions}, metrics}}))
}

// Values sorts durations and returns them as seconds, rounded to milliseconds. Above 100 values it keeps every n-th of the
// sorted list, the longest included. Percentiles hold, and the count is too low.
func Values(durations []time.Duration) []float64 {
	slices.Sort(durations)
	step := (len(durations) + maxValues - 1) / maxValues
	var seconds []float64
	for i := len(durations) - 1; i >= 0; i -= step {
		seconds = append(seconds, float64(durations[i].Milliseconds())/1000)
	}
	slices.Reverse(seconds)
	return seconds
}
