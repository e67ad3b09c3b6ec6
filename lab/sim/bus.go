package sim

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"rds-outbox-demo/lab/awslocal"
)

// busOf is the bus as a consumer's process reaches it.
type busOf struct {
	*world
	*process
}

func (b busOf) DescribeEventBus(ctx context.Context, _ *eventbridge.DescribeEventBusInput, _ ...func(*eventbridge.Options)) (*eventbridge.DescribeEventBusOutput, error) {
	return &eventbridge.DescribeEventBusOutput{}, b.wait(ctx, b.delay(time.Millisecond, 5*time.Millisecond, "describe bus"), b.process)
}

var busFaults = map[Kind]effect{
	KillBeforeBus: {before: true, kill: true},
	KillAfterBus:  {kill: true},
	RefuseEntries: {},
	FailEvents:    {before: true, err: &smithy.GenericAPIError{Code: "InternalException"}},
	LoseEvents:    {lost: true},
	LateEvents:    {late: span{6 * time.Second, 9 * time.Second}},
	SlowEvents:    {slow: span{time.Second, 4 * time.Second}},
}

// PutEvents answers as EventBridge does. The entries behind a refused one are still accepted.
func (b busOf) PutEvents(ctx context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	tag := hash([]byte(aws.ToString(in.Entries[0].Detail)))
	return carry(ctx, b.world, b.process, tag, busFaults, func(fault Kind) *eventbridge.PutEventsOutput { return b.publish(in, fault) })
}

// publish takes the entries of a call. The caller holds mu.
func (b busOf) publish(in *eventbridge.PutEventsInput, fault Kind) *eventbridge.PutEventsOutput {
	out := &eventbridge.PutEventsOutput{}
	for i, entry := range in.Entries {
		detail := aws.ToString(entry.Detail)
		code := ""
		switch {
		case strings.Contains(detail, poisonWord):
			code = "MalformedDetail"
		case fault == RefuseEntries && (i == 0 || b.draw("refuse", detail)%2 == 0):
			code = "ThrottlingException"
		}
		if code != "" {
			b.note("bus refuses %s by %s", hash([]byte(detail)), code)
			out.Entries = append(out.Entries, types.PutEventsResultEntry{ErrorCode: &code})
			out.FailedEntryCount++
			continue
		}
		id := b.id("entry", i, detail).String()
		b.note("bus has %s", hash([]byte(detail)))
		b.arrivals = append(b.arrivals, awslocal.BusEvent{
			ID: id, Accepted: time.Now(), Source: aws.ToString(entry.Source), DetailType: aws.ToString(entry.DetailType),
			Time: aws.ToTime(entry.Time).Truncate(time.Millisecond), Resources: entry.Resources,
			TraceHeader: aws.ToString(entry.TraceHeader), Detail: json.RawMessage(detail),
		})
		out.Entries = append(out.Entries, types.PutEventsResultEntry{EventId: &id})
	}
	return out
}

// queueOf is the failure queue as a consumer's process reaches it.
type queueOf struct {
	*world
	*process
}

var parkFaults = map[Kind]effect{
	KillPark: {kill: true},
	FailPark: {before: true, err: &smithy.GenericAPIError{Code: "InternalError"}},
	LosePark: {err: errGone},
}

func (q queueOf) SendMessage(ctx context.Context, in *sqs.SendMessageInput, _ ...func(*sqs.Options)) (*sqs.SendMessageOutput, error) {
	body := []byte(aws.ToString(in.MessageBody))
	return carry(ctx, q.world, q.process, hash(body), parkFaults, func(Kind) *sqs.SendMessageOutput {
		q.note("parked %s", hash(body))
		q.parked = append(q.parked, body)
		return &sqs.SendMessageOutput{}
	})
}
