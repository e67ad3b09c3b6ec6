package bench

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// innerLoops are the Go benchmarks of what is done for every event, and how many allocations an operation may have: a few more than it
// has. They are the same on every machine, so CI notices here what times are too noisy to tell.
var innerLoops = []struct {
	pkg, benchmark string
	allocs         float64
}{
	{"handlers/carapi", "BenchmarkReadCar", 34},
	{"outbox", "BenchmarkAppend", 11},
	{"outbox", "BenchmarkAppendJSON", 1},
	{"walrelay", "BenchmarkDecodeInsert", 7},
	{"walrelay", "BenchmarkPutBody", 2},
	{"handlers/cdcconsumer", "BenchmarkDecode", 60_000}, // 1,000 records
	{"handlers/cdcconsumer", "BenchmarkNewEntry", 20},
	{"handlers/cdcconsumer", "BenchmarkPublish/Aggregates=1000", 24_000}, // 1,000 records
}

// allocations counts what the inner loops allocate.
func allocations(ctx context.Context, e *environment) (rows []Row, err error) {
	counts := map[string]float64{}
	benchmarks := map[string][]string{} // by package
	for _, loop := range innerLoops {
		name, _, _ := strings.Cut(loop.benchmark, "/") // with all of its sub-benchmarks
		benchmarks[loop.pkg] = append(benchmarks[loop.pkg], name)
	}
	for pkg, names := range benchmarks {
		command := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^("+strings.Join(names, "|")+")$", "-benchtime", "100x", "-benchmem", "./"+pkg)
		command.Dir = e.Root
		out, err := command.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("running the benchmarks of %s: %w: %s", pkg, err, out)
		}
		for _, match := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
			if counts[pkg+" "+match[1]], err = strconv.ParseFloat(match[2], 64); err != nil {
				return nil, err
			}
		}
	}
	for _, loop := range innerLoops {
		name := loop.pkg + " " + loop.benchmark
		count, measured := counts[name]
		if !measured {
			return nil, fmt.Errorf("there is no benchmark %s", name)
		}
		rows = append(rows, Row{What: name, Unit: "allocs/op", Ours: Values{count}}.atMost(loop.allocs).bounded(loop.allocs))
	}
	return rows, nil
}

// benchmarkLine is a line such as "BenchmarkAppend-2   200   1858 ns/op   391 B/op   10 allocs/op".
var benchmarkLine = regexp.MustCompile(`(?m)^(Benchmark\S+?)(?:-\d+)?\s.*\s(\d+) allocs/op`)
