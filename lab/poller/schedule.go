package poller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Schedule is EventBridge's rule with a rate, whose target is a function. All is required.
type Schedule struct {
	// Function is invoked with the JSON of an event of type "Scheduled Event", otherwise as Config.Function.
	Function        func(ctx context.Context, payload []byte) ([]byte, error)
	Rate            time.Duration // from one invocation to the next
	FunctionTimeout time.Duration
	Log             *slog.Logger
}

// Run invokes the function until ctx ends. There is one known difference. Lambda runs what EventBridge sends asynchronously, and repeats
// an invocation that failed up to twice, so that another one can begin meanwhile.
func (s Schedule) Run(ctx context.Context) {
	for wait(ctx, s.Rate) {
		if _, err := call(ctx, s.Function, scheduled(time.Now()), s.FunctionTimeout, "arn:aws:lambda:us-east-1:000000000000:function:local"); err != nil {
			s.Log.WarnContext(ctx, "schedule failed", "error", err.Error())
		}
	}
}

// scheduled is the event of a schedule, as in the EventBridge user guide.
func scheduled(at time.Time) []byte {
	return fmt.Appendf(nil, `{"version":"0","id":%q,"detail-type":"Scheduled Event","source":"aws.events","account":"000000000000","time":%q,`+
		`"region":"us-east-1","resources":["arn:aws:events:us-east-1:000000000000:rule/local"],"detail":{}}`, uuid.NewString(), at.UTC().Format(time.RFC3339))
}
