package outboxctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"rds-outbox-demo/internal/plural"
)

// services makes the checks of ④, ⑤ and ⑥.
func (d doctor) services(ctx context.Context) (checks []check) {
	limited := func(make func(context.Context) []check) {
		ctx, cancel := context.WithTimeout(ctx, d.patience)
		defer cancel()
		checks = append(checks, make(ctx)...)
	}
	var stream *kinesistypes.StreamDescriptionSummary
	limited(func(ctx context.Context) (found []check) { stream, found = d.checkStream(ctx); return found })
	limited(func(ctx context.Context) []check { return d.partitionKeys(ctx, stream) })
	limited(func(ctx context.Context) []check { return d.mapping(ctx, stream) })
	limited(func(ctx context.Context) []check {
		return d.queue(ctx, "failure queue", d.FailureQueue, "parked", "FAILURE_QUEUE_URL")
	})
	limited(func(ctx context.Context) []check {
		return d.queue(ctx, "discard queue", d.DiscardQueue, "given up by Lambda", "DISCARD_QUEUE_URL")
	})
	limited(d.checkBus)
	return checks
}

// checkStream also compares the clocks, because every answer of AWS has a Date.
func (d doctor) checkStream(ctx context.Context) (*kinesistypes.StreamDescriptionSummary, []check) {
	asked := d.now()
	out, err := kinesis.NewFromConfig(d.AWS).DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &d.Stream})
	half := d.now().Sub(asked) / 2
	if err != nil {
		return nil, []check{serviceError("stream", err, "check STREAM_NAME, the region and the credentials"), {"AWS clock", stateSkip, "no answer", ""}}
	}
	found := out.StreamDescriptionSummary
	hours := int(aws.ToInt32(found.RetentionPeriodHours))
	c := check{"stream", stateOK, fmt.Sprintf("%s is %s, keeps %d h, %s", d.Stream, found.StreamStatus, hours, plural.Of(int(aws.ToInt32(found.OpenShardCount)), "shard")), ""}
	switch {
	case found.StreamStatus == kinesistypes.StreamStatusUpdating:
		c.State, c.Do = stateWarn, "wait until it is ACTIVE"
	case found.StreamStatus != kinesistypes.StreamStatusActive:
		c.State, c.Do = stateFail, "wait until it is ACTIVE, or make it again"
	case d.RetentionDays == 0:
		c.State, c.Do = stateWarn, "set RETENTION_DAYS to the stage's retentionDays"
		c.Finding += ", and whether rows stay longer is not known"
	case d.RetentionDays*24 <= hours+24:
		c.State, c.Do = stateFail, "rows must outlive their records by more than a day: raise RETENTION_DAYS, or lower the stream's retention"
		c.Finding += fmt.Sprintf(", and rows stay only %d days", d.RetentionDays)
	case hours < 168:
		c.State, c.Do = stateWarn, "168 h give a week for the consumer to be repaired in"
	}
	theirs, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok {
		return found, []check{c, {"AWS clock", stateSkip, "the answer has no Date", ""}}
	}
	// A Date has whole seconds.
	return found, []check{c, clock("AWS clock", theirs.Add(time.Second/2), asked.Add(half), half+time.Second/2)}
}

// mapping checks what makes Lambda lose records, or give them up before the stream does.
func (d doctor) mapping(ctx context.Context, stream *kinesistypes.StreamDescriptionSummary) []check {
	if d.Consumer == "" || stream == nil {
		why := "CONSUMER_FUNCTION is not set"
		if d.Consumer != "" {
			why = "no stream"
		}
		return []check{{"mapping", stateSkip, why, ""}}
	}
	out, err := lambda.NewFromConfig(d.AWS).ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{
		FunctionName: &d.Consumer, EventSourceArn: stream.StreamARN,
	})
	if err != nil {
		return []check{serviceError("mapping", err, "check CONSUMER_FUNCTION; it takes lambda:ListEventSourceMappings")}
	}
	if len(out.EventSourceMappings) != 1 {
		return []check{{"mapping", stateFail, fmt.Sprintf("%s has %d mappings to %s", d.Consumer, len(out.EventSourceMappings), d.Stream),
			"deploy the service: there has to be one"}}
	}
	m := out.EventSourceMappings[0]
	if problems := mappingProblems(m, time.Duration(aws.ToInt32(stream.RetentionPeriodHours))*time.Hour); len(problems) > 0 {
		return problems
	}
	return []check{{"mapping", stateOK, fmt.Sprintf("%s, batches of %d, gives up after %s", aws.ToString(m.State), aws.ToInt32(m.BatchSize),
		time.Duration(aws.ToInt32(m.MaximumRecordAgeInSeconds))*time.Second), ""}}
}

func mappingProblems(m lambdatypes.EventSourceMappingConfiguration, retention time.Duration) (problems []check) {
	problem := func(is bool, level state, finding, do string) {
		if is {
			problems = append(problems, check{"mapping", level, finding, do})
		}
	}
	name, age := aws.ToString(m.State), time.Duration(aws.ToInt32(m.MaximumRecordAgeInSeconds))*time.Second
	changing := slices.Contains([]string{"Creating", "Enabling", "Updating"}, name)
	problem(changing, stateWarn, "is "+name, "look again in a minute")
	problem(!changing && name != "Enabled", stateFail, "is "+name+": nobody is invoked",
		"aws lambda update-event-source-mapping --enabled --uuid "+aws.ToString(m.UUID))
	result := aws.ToString(m.LastProcessingResult)
	problem(strings.HasPrefix(result, "PROBLEM"), stateFail, "last result: "+printable(result), "see consumer-lag and consumer-errors in docs/operations.md")
	problem(!slices.Contains(m.FunctionResponseTypes, lambdatypes.FunctionResponseTypeReportBatchItemFailures), stateFail,
		"does not read which records failed: they are lost", "set FunctionResponseTypes to ReportBatchItemFailures")
	problem(aws.ToInt32(m.MaximumRetryAttempts) != -1, stateFail, fmt.Sprintf("gives records up after %d retries", aws.ToInt32(m.MaximumRetryAttempts)),
		"set MaximumRetryAttempts to -1")
	problem(age < 0 || age >= retention, stateFail, fmt.Sprintf("the stream forgets a record (after %s) before Lambda tells that it gave it up", retention),
		"set MaximumRecordAgeInSeconds to an hour less than the stream's retention")
	problem(age >= 0 && age < retention/2, stateWarn, fmt.Sprintf("gives a record up after %s, the stream keeps it for %s", age, retention),
		"set MaximumRecordAgeInSeconds to an hour less than the stream's retention")
	problem(m.DestinationConfig == nil || m.DestinationConfig.OnFailure == nil || aws.ToString(m.DestinationConfig.OnFailure.Destination) == "",
		stateFail, "tells nobody what it gave up", "set DestinationConfig.OnFailure to the discard queue")
	problem(m.FilterCriteria != nil && len(m.FilterCriteria.Filters) > 0, stateFail, "has a filter: what is not JSON is dropped without a trace",
		"remove FilterCriteria")
	problem(!aws.ToBool(m.BisectBatchOnFunctionError), stateWarn, "does not halve a batch that crashes the function: its records stay together",
		"set BisectBatchOnFunctionError")
	return problems
}

func (d doctor) queue(ctx context.Context, name, url, what, variable string) []check {
	if url == "" {
		return []check{{name, stateSkip, variable + " is not set", ""}}
	}
	out, err := sqs.NewFromConfig(d.AWS).GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{
		sqstypes.QueueAttributeNameApproximateNumberOfMessages, sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}})
	if err != nil {
		return []check{serviceError(name, err, "check "+variable)}
	}
	visible, hidden := out.Attributes["ApproximateNumberOfMessages"], out.Attributes["ApproximateNumberOfMessagesNotVisible"]
	if visible == "0" && hidden == "0" {
		return []check{{name, stateOK, "empty", ""}}
	}
	if hidden != "0" {
		visible += " (and " + hidden + " that someone is looking at)"
	}
	return []check{{name, stateFail, fmt.Sprintf("messages: %s: events that were %s are not on the bus", visible, what), "outboxctl redrive list"}}
}

// checkBus is needed because PutEvents does not check the bus. It answers with success if the bus does not exist.
func (d doctor) checkBus(ctx context.Context) []check {
	if _, err := eventbridge.NewFromConfig(d.AWS).DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &d.Bus}); err != nil {
		return []check{serviceError("bus", err, "check EVENT_BUS_NAME: events for a bus that is not there are accepted and gone")}
	}
	return []check{{"bus", stateOK, d.Bus + " is there", ""}}
}

// serviceError is for a check that AWS did not answer. do helps if AWS refused the call.
func serviceError(name string, err error, do string) check {
	c := broken(name, err)
	var api smithy.APIError
	if errors.As(err, &api) {
		c.Finding, c.Do = api.ErrorCode()+": "+api.ErrorMessage(), do
	}
	return c
}
