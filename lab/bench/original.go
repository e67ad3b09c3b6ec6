package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"rds-outbox-demo/lab/process"
)

// standIn is the name of what does the original's work in its way. The original itself is not here to be measured.
const standIn = "Node stand-in"

func (e *environment) originalScript() string {
	return filepath.Join(e.Root, "lab", "bench", "original", "original.mjs")
}

// originalAPI is a request in one transaction of four round trips.
func (e *environment) originalAPI(database string) process.Config {
	return process.Config{Program: "node", Args: []string{e.originalScript(), "api"}, Env: []string{"DATABASE_URL=" + database}}
}

// originalConsumer publishes the batch to the bus repeats times, ten entries at a time, each call awaited: events/s.
func (e *environment) originalConsumer(bus string, batch events.KinesisEvent, repeats int) measurement {
	return func(ctx context.Context) (float64, error) {
		input, err := json.Marshal(batch)
		if err != nil {
			return 0, fmt.Errorf("encoding the batch: %w", err)
		}
		command := exec.CommandContext(ctx, "node", e.originalScript(), "consumer", strconv.Itoa(repeats))
		command.Env = []string{"BUS_URL=" + bus, "AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED=true"}
		command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
		output, err := command.Output()
		if err != nil {
			return 0, fmt.Errorf("the stand-in for the original: %w (make bench installs its packages)", err)
		}
		return strconv.ParseFloat(strings.TrimSpace(string(output)), 64)
	}
}
