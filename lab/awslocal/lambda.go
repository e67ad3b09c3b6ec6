package awslocal

import (
	"encoding/json"
	"net/http"
	"strings"

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

const listMappings = "lambda.ListEventSourceMappings"

// restOperation returns the key of an operation whose protocol is REST. It returns "" for all
// others, which are named in X-Amz-Target.
func restOperation(r *http.Request) string {
	if r.Method == http.MethodGet && strings.TrimSuffix(r.URL.Path, "/") == "/2015-03-31/event-source-mappings" {
		return listMappings
	}
	return ""
}

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

type mappingOutput struct {
	UUID                           string
	EventSourceArn                 string
	FunctionArn                    string
	State                          string
	StateTransitionReason          string
	LastProcessingResult           string
	StartingPosition               string
	BatchSize                      int
	MaximumBatchingWindowInSeconds int
	ParallelizationFactor          int
	MaximumRetryAttempts           int
	MaximumRecordAgeInSeconds      int
	BisectBatchOnFunctionError     bool
	TumblingWindowInSeconds        int
	FunctionResponseTypes          []string
	DestinationConfig              struct {
		OnFailure struct {
			Destination string `json:",omitempty"`
		}
	}
	FilterCriteria *filterCriteria `json:",omitempty"`
}

type filterCriteria struct{ Filters []mappingFilter }

type mappingFilter struct{ Pattern string }

// listEventSourceMappings has no pages, because there are never 100 mappings.
func (l lambda) listEventSourceMappings(_ *call, in *listEventSourceMappingsInput) (any, error) {
	all := []mappingOutput{}
	for _, m := range l.mappings {
		out := m.output()
		if in.EventSourceArn != "" && in.EventSourceArn != out.EventSourceArn {
			continue
		}
		if in.FunctionName == "" || in.FunctionName == m.Function || in.FunctionName == out.FunctionArn {
			all = append(all, out)
		}
	}
	return map[string]any{"EventSourceMappings": all}, nil
}

func (m Mapping) output() mappingOutput {
	out := mappingOutput{
		UUID:                  uuid.NewSHA1(uuid.NameSpaceURL, []byte(m.Function+"\x00"+m.Stream)).String(),
		EventSourceArn:        streamARN(m.Stream),
		FunctionArn:           "arn:aws:lambda:" + Region + ":" + Account + ":function:" + m.Function,
		State:                 m.State,
		StateTransitionReason: "User action",
		LastProcessingResult:  "OK",
		StartingPosition:      "TRIM_HORIZON",
		BatchSize:             m.BatchSize, ParallelizationFactor: m.ParallelizationFactor,
		MaximumRetryAttempts: m.MaximumRetryAttempts, MaximumRecordAgeInSeconds: m.MaximumRecordAge,
		BisectBatchOnFunctionError: m.BisectOnError,
		FunctionResponseTypes:      []string{},
	}
	if out.State == "" {
		out.State = "Enabled"
	}
	if m.ReportBatchItemFailures {
		out.FunctionResponseTypes = append(out.FunctionResponseTypes, "ReportBatchItemFailures")
	}
	if m.OnFailureQueue != "" {
		out.DestinationConfig.OnFailure.Destination = "arn:aws:sqs:" + Region + ":" + Account + ":" + m.OnFailureQueue
	}
	if len(m.Filters) > 0 {
		out.FilterCriteria = &filterCriteria{}
		for _, pattern := range m.Filters {
			out.FilterCriteria.Filters = append(out.FilterCriteria.Filters, mappingFilter{pattern})
		}
	}
	return out
}
