package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/part"
)

// AWS says which services are not the local listener. An empty field means the local one; the stack never reaches a service that
// is not named here.
type AWS struct {
	Region                  string // default us-east-1
	AccessKeyID, SecretKey  string // default: dummies
	SessionToken            string
	KinesisURL, StreamName  string
	EventBridgeURL, BusName string
	SQSURL, FailureQueueURL string
	// LogsURL and BusLogGroup are where outboxctl reads the events of a bus that is not the local one. Optional.
	LogsURL, BusLogGroup string
}

const (
	localStream = "rds-outbox-demo-dev-outbox"
	localBus    = "rds-outbox-demo-dev-outbox"
	localQueue  = "rds-outbox-demo-dev-failures"
	localOnFail = "rds-outbox-demo-dev-discards"
	localLogs   = "/aws/events/rds-outbox-demo-dev" // every event of the bus, as infra/bus.yml has it
	// localShards are enough to see that aggregates spread over shards.
	localShards = 2
)

// clients are the SDK's clients and the names that go with them.
type clients struct {
	region, accessKeyID, secretKey, sessionToken string

	kinesis     *kinesis.Client
	eventBridge *eventbridge.Client
	sqs         *sqs.Client
	stream      string
	bus         string
	queueURL    string
	discardsURL string // empty when SQS is not local
	consumer    string // name of the function; empty when the stream is not local: nobody then tells of its mapping
	logGroup    string // of the bus; empty when nobody said which

	local                                       string // the listener; empty when there is none
	kinesisURL, eventBridgeURL, sqsURL, logsURL string
}

// startAWS opens the local listener, if any service is local, and the clients.
func (s *Path) startAWS(ctx context.Context, c Config) (clients, error) {
	a := c.AWS
	local := ""
	if a.KinesisURL == "" || a.EventBridgeURL == "" || a.SQSURL == "" {
		var err error
		if local, err = s.startListener(c); err != nil {
			return clients{}, err
		}
	}
	if a.SQSURL != "" && a.FailureQueueURL == "" {
		return clients{}, errors.New("AWS_ENDPOINT_URL_SQS is set: set FAILURE_QUEUE_URL, too")
	}
	if a.EventBridgeURL != "" && a.BusName == "" {
		return clients{}, errors.New("AWS_ENDPOINT_URL_EVENTBRIDGE is set: set EVENT_BUS_NAME, too")
	}
	k := clients{
		region:       cmp.Or(a.Region, "us-east-1"),
		accessKeyID:  cmp.Or(a.AccessKeyID, "local"),
		secretKey:    cmp.Or(a.SecretKey, "local"),
		sessionToken: a.SessionToken,
		stream:       cmp.Or(a.StreamName, localStream),
		bus:          cmp.Or(a.BusName, localBus),
		queueURL:     cmp.Or(a.FailureQueueURL, awslocal.QueueURL(local, localQueue)),

		local:          local,
		kinesisURL:     cmp.Or(a.KinesisURL, local),
		eventBridgeURL: cmp.Or(a.EventBridgeURL, local),
		sqsURL:         cmp.Or(a.SQSURL, local),
		logsURL:        a.LogsURL,
		logGroup:       a.BusLogGroup,
	}
	if a.SQSURL == "" {
		k.discardsURL = awslocal.QueueURL(local, localOnFail)
	}
	if a.KinesisURL == "" {
		k.consumer = localConsumer
	}
	if a.EventBridgeURL == "" {
		k.logsURL, k.logGroup = local, localLogs
	}
	config := aws.Config{
		Region:      k.region,
		Credentials: credentials.NewStaticCredentialsProvider(k.accessKeyID, k.secretKey, k.sessionToken),
	}
	k.kinesis = kinesis.NewFromConfig(config, func(o *kinesis.Options) { o.BaseEndpoint = &k.kinesisURL })
	k.eventBridge = eventbridge.NewFromConfig(config, func(o *eventbridge.Options) {
		o.BaseEndpoint = &k.eventBridgeURL
	})
	k.sqs = sqs.NewFromConfig(config, func(o *sqs.Options) { o.BaseEndpoint = &k.sqsURL })
	return k, k.ensureStream(ctx)
}

func (s *Path) startListener(c Config) (string, error) {
	c.Progress("AWS listener")
	server, err := awslocal.Open(part.WithCarStats(awslocal.Config{
		Dir:      filepath.Join(c.Dir, "aws"),
		Streams:  []awslocal.Stream{{Name: cmp.Or(c.AWS.StreamName, localStream), Shards: localShards}},
		Buses:    []string{cmp.Or(c.AWS.BusName, localBus)},
		BusLogs:  map[string]string{localLogs: cmp.Or(c.AWS.BusName, localBus)},
		Queues:   []string{localQueue, localOnFail},
		Mappings: []awslocal.Mapping{mapping(cmp.Or(c.AWS.StreamName, localStream), c.AWS.SQSURL == "")},
		OnRecord: c.Observe.stored(),
		OnEvent:  c.Observe.accepted(),
		Log:      c.Log,
	}, cmp.Or(c.AWS.BusName, localBus), localStats, statsReceives))
	if err != nil {
		return "", err
	}
	s.AWS = server
	s.onClose(func(context.Context) error { return server.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listening for AWS calls: %w", err)
	}
	// No read timeout: the listener has to hold calls for as long as a fault says.
	http := &http.Server{Handler: server, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = http.Serve(listener) }()
	s.onClose(func(context.Context) error { return http.Close() })
	return "http://" + listener.Addr().String(), nil
}

// ensureStream makes the stream on an emulator of this machine. Anywhere else a stream costs money and is not ours to make.
func (k clients) ensureStream(ctx context.Context) error {
	_, err := k.kinesis.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) && isLoopback(k.kinesisURL) {
		_, err = k.kinesis.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &k.stream, ShardCount: aws.Int32(localShards)})
		if err == nil {
			waiter := kinesis.NewStreamExistsWaiter(k.kinesis, func(o *kinesis.StreamExistsWaiterOptions) { o.MinDelay = 100 * time.Millisecond })
			err = waiter.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &k.stream}, 30*time.Second)
		}
	}
	if err != nil {
		return fmt.Errorf("looking for stream %s at %s: %w (STREAM_NAME names another)", k.stream, k.kinesisURL, err)
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
