package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"rds-outbox-demo/internal/sdkhttp"
	"rds-outbox-demo/lab/awslocal"
)

// Names of what is on the local listener.
const (
	localStream   = "rds-outbox-demo-dev-outbox"
	localBus      = "rds-outbox-demo-dev-outbox"
	localQueue    = "rds-outbox-demo-dev-failures"
	localOnFail   = "rds-outbox-demo-dev-discards"
	localStats    = "rds-outbox-demo-dev-carstats"
	localConsumer = "rds-outbox-demo-dev-cdcConsumer"
	localLogs     = "/aws/events/rds-outbox-demo-dev" // every event of the bus, as infra/bus.yml has it
	// localShards are enough to see that aggregates spread over shards.
	localShards = 2
)

// Services are the addresses of a path's AWS services and the names of what it has there. Those of Config say which services are external.
// The path never reaches a service that is not named there. As JSON they go to members in other processes.
type Services struct {
	Region                               string // default us-east-1
	AccessKeyID, SecretKey, SessionToken string // default dummies

	// An empty URL means the local listener.
	KinesisURL, EventBridgeURL, SQSURL string
	Stream, Bus                        string
	FailureQueueURL                    string // of the consumer
	// LogsURL and LogGroup are where outboxctl reads the events of the bus. Optional for an external bus, and the local one has its own.
	LogsURL, LogGroup string

	// The path sets the others.
	Local           string // URL of the listener; empty when every service is external
	DiscardQueueURL string // of the consumer's mapping; empty when SQS is not local
	CarStatsURL     string // the subscriber's queue; empty when the bus or SQS is not local: then nobody fills it
	Consumer        string // name of the function; empty when the stream is not local: nobody then tells of its mapping
}

// complete adds the local listener, whose URL may be empty, to what the user has.
func (s Services) complete(local string) (Services, error) {
	if s.SQSURL != "" && s.FailureQueueURL == "" {
		return s, errors.New("AWS_ENDPOINT_URL_SQS is set: set FAILURE_QUEUE_URL, too")
	}
	if s.EventBridgeURL != "" && s.Bus == "" {
		return s, errors.New("AWS_ENDPOINT_URL_EVENTBRIDGE is set: set EVENT_BUS_NAME, too")
	}
	if s.EventBridgeURL == "" && s.SQSURL == "" {
		s.CarStatsURL = awslocal.QueueURL(local, localStats)
	}
	if s.KinesisURL == "" {
		s.KinesisURL, s.Consumer = local, localConsumer
	}
	if s.EventBridgeURL == "" {
		s.EventBridgeURL, s.LogsURL, s.LogGroup = local, local, localLogs
	}
	if s.SQSURL == "" {
		s.SQSURL, s.DiscardQueueURL = local, awslocal.QueueURL(local, localOnFail)
	}
	s.Region, s.AccessKeyID, s.SecretKey = cmp.Or(s.Region, "us-east-1"), cmp.Or(s.AccessKeyID, "local"), cmp.Or(s.SecretKey, "local")
	s.Stream, s.Bus = cmp.Or(s.Stream, localStream), cmp.Or(s.Bus, localBus)
	s.FailureQueueURL = cmp.Or(s.FailureQueueURL, awslocal.QueueURL(local, localQueue))
	s.Local = local
	return s, nil
}

// needsListener reports whether any service is local.
func (s Services) needsListener() bool {
	return s.KinesisURL == "" || s.EventBridgeURL == "" || s.SQSURL == ""
}

// idleConnTimeout is short, so that a load leaves no connections behind. Each costs three goroutines where both of its ends are here.
const idleConnTimeout = 5 * time.Second

// httpClient is one for all clients of the SDK, because each HTTP client keeps idle connections of its own. The queues' depths are asked
// several times a second, each time with a new client of the SDK.
var httpClient = sdkhttp.Client(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
	t.IdleConnTimeout = idleConnTimeout
	t.MaxIdleConnsPerHost = 64 // as many as ask at once: carstats' workers, the consumer's lanes and the view
}))

func (s Services) config() aws.Config {
	return aws.Config{
		Region: s.Region, Credentials: credentials.NewStaticCredentialsProvider(s.AccessKeyID, s.SecretKey, s.SessionToken),
		HTTPClient: httpClient,
	}
}

// Kinesis makes a client.
func (s Services) Kinesis() *kinesis.Client {
	return kinesis.NewFromConfig(s.config(), func(o *kinesis.Options) { o.BaseEndpoint = &s.KinesisURL })
}

// EventBridge makes a client.
func (s Services) EventBridge() *eventbridge.Client {
	return eventbridge.NewFromConfig(s.config(), func(o *eventbridge.Options) { o.BaseEndpoint = &s.EventBridgeURL })
}

// SQS makes a client.
func (s Services) SQS() *sqs.Client {
	return sqs.NewFromConfig(s.config(), func(o *sqs.Options) { o.BaseEndpoint = &s.SQSURL })
}

// env is what walrelay and outboxctl are told of the services, as NAME=value.
func (s Services) env() []string {
	env := []string{
		"AWS_REGION=" + s.Region, "AWS_ACCESS_KEY_ID=" + s.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"STREAM_NAME=" + s.Stream, "EVENT_BUS_NAME=" + s.Bus, "FAILURE_QUEUE_URL=" + s.FailureQueueURL,
	}
	for _, optional := range []struct{ name, value string }{
		{"AWS_SESSION_TOKEN", s.SessionToken},
		{"BUS_LOG_GROUP", s.LogGroup},
		{"DISCARD_QUEUE_URL", s.DiscardQueueURL},
		{"CONSUMER_FUNCTION", s.Consumer},
		// A service that is not named here is not reached. Otherwise the SDK would go to AWS with
		// these credentials.
		{"AWS_ENDPOINT_URL", cmp.Or(s.Local, nobody)},
		{"AWS_ENDPOINT_URL_KINESIS", s.KinesisURL},
		{"AWS_ENDPOINT_URL_EVENTBRIDGE", s.EventBridgeURL},
		{"AWS_ENDPOINT_URL_SQS", s.SQSURL},
		{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", s.LogsURL},
	} {
		if optional.value != "" {
			env = append(env, optional.name+"="+optional.value)
		}
	}
	return env
}

// ensureStream makes the stream on an emulator of this machine. Anywhere else a stream costs money and is not ours to make.
func (s Services) ensureStream(ctx context.Context) error {
	client := s.Kinesis()
	_, err := client.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &s.Stream})
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) && isLoopback(s.KinesisURL) {
		_, err = client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &s.Stream, ShardCount: aws.Int32(localShards)})
		if err == nil {
			waiter := kinesis.NewStreamExistsWaiter(client, func(o *kinesis.StreamExistsWaiterOptions) { o.MinDelay = 100 * time.Millisecond })
			err = waiter.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &s.Stream}, 30*time.Second)
		}
	}
	if err != nil {
		return fmt.Errorf("looking for stream %s at %s: %w (STREAM_NAME names another)", s.Stream, s.KinesisURL, err)
	}
	return nil
}

func isLoopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
