package awslocal

import (
	"cmp"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
)

// Mapping is an event source mapping of a function to a stream of this listener, with the members that Lambda tells of one.
type Mapping struct {
	Function string // name
	Stream   string // name
	State    string // default Enabled

	BatchSize               int
	ParallelizationFactor   int
	MaximumRetryAttempts    int // -1: no limit
	MaximumRecordAge        int // s; -1: no limit
	BisectOnError           bool
	ReportBatchItemFailures bool
	OnFailureQueue          string // name. If it is empty nobody is told
	Filters                 []string
}

// lambda is the little of Lambda that exists here. It answers questions about mappings that another
// program carries out.
type lambda struct{ mappings []Mapping }

// queryBody makes the input of a REST operation from its query.
func queryBody(r *http.Request) []byte {
	in := map[string]string{}
	for name, values := range r.URL.Query() {
		in[name] = values[0]
	}
	body, _ := json.Marshal(in) // strings always marshal
	return body
}

type listEventSourceMappingsInput struct {
	EventSourceArn string
	FunctionName   string // name or ARN
}

// listEventSourceMappings has no pages, because there are never 100 mappings.
func (l lambda) listEventSourceMappings(_ *call, in *listEventSourceMappingsInput) (any, error) {
	all := []map[string]any{}
	for _, m := range l.mappings {
		arn, source := "arn:aws:lambda:"+Region+":"+Account+":function:"+m.Function, streamARN(m.Stream)
		if (in.EventSourceArn == "" || in.EventSourceArn == source) && (in.FunctionName == "" || in.FunctionName == m.Function || in.FunctionName == arn) {
			all = append(all, m.output(arn, source))
		}
	}
	return map[string]any{"EventSourceMappings": all}, nil
}

func (m Mapping) output(arn, source string) map[string]any {
	responses, onFailure := []string{}, map[string]string{}
	if m.ReportBatchItemFailures {
		responses = append(responses, "ReportBatchItemFailures")
	}
	if m.OnFailureQueue != "" {
		onFailure["Destination"] = queueARN(m.OnFailureQueue)
	}
	out := map[string]any{
		"UUID":                           uuid.NewSHA1(uuid.NameSpaceURL, []byte(m.Function+"\x00"+m.Stream)).String(),
		"EventSourceArn":                 source,
		"FunctionArn":                    arn,
		"State":                          cmp.Or(m.State, "Enabled"),
		"StateTransitionReason":          "User action",
		"LastProcessingResult":           "OK",
		"StartingPosition":               "TRIM_HORIZON",
		"BatchSize":                      m.BatchSize,
		"MaximumBatchingWindowInSeconds": 0,
		"ParallelizationFactor":          m.ParallelizationFactor,
		"MaximumRetryAttempts":           m.MaximumRetryAttempts,
		"MaximumRecordAgeInSeconds":      m.MaximumRecordAge,
		"BisectBatchOnFunctionError":     m.BisectOnError,
		"TumblingWindowInSeconds":        0,
		"FunctionResponseTypes":          responses,
		"DestinationConfig":              map[string]any{"OnFailure": onFailure},
	}
	if len(m.Filters) > 0 {
		filters := []map[string]string{}
		for _, pattern := range m.Filters {
			filters = append(filters, map[string]string{"Pattern": pattern})
		}
		out["FilterCriteria"] = map[string]any{"Filters": filters}
	}
	return out
}
