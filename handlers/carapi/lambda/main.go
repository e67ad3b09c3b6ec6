// Command lambda is the car API (①②) as an AWS Lambda function behind an API Gateway REST API.
//
// In: proxy events of payload version 1.0, and the environment variables IDEMPOTENCY_HOURS (how long an Idempotency-Key is kept), CORS_ORIGIN
// (empty: no pages of other origins), and
// DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_SECRET_ARN and DB_SSL (package rdsdb). Out: proxy answers, JSON log lines on standard output.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/rdsdb"
)

// maxIdempotencyHours is 30 days. It is a limit because each key is a row with the whole answer.
const maxIdempotencyHours = 720

func main() { os.Exit(run()) }

func run() int {
	logger := lambdalog.New()
	gateway, err := start(logger)
	if err != nil {
		logger.Error("starting the car API", "error", err)
		return 1
	}
	// With a heap as small as ours the collector would run every few hundred requests, and take a fifth
	// of their CPU. With 400 it takes a quarter of that, and at most 16 MB of garbage instead of 4 wait
	// for it.
	debug.SetGCPercent(400)
	lambda.Start(gateway.handle)
	return 0
}

// start is the function's init. It makes one pool for the environment's whole life. It calls no other
// machine. The first request does.
func start(logger *slog.Logger) (*gateway, error) {
	dbConfig, err := rdsdb.ConfigFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	dbConfig.ApplicationName = "carapi"
	hours, err := strconv.Atoi(os.Getenv("IDEMPOTENCY_HOURS"))
	if err != nil || hours < 1 || hours > maxIdempotencyHours {
		return nil, fmt.Errorf("IDEMPOTENCY_HOURS is %q: set it to 1 to %d hours, such as 24", os.Getenv("IDEMPOTENCY_HOURS"), maxIdempotencyHours)
	}
	pool, err := rdsdb.New(dbConfig, secretsmanager.NewFromConfig(sdkConfig()))
	if err != nil {
		return nil, err
	}
	api, err := carapi.New(carapi.Config{Pool: pool, Logger: logger, Caller: caller, KeepKeys: time.Duration(hours) * time.Hour, CORSOrigin: os.Getenv("CORS_ORIGIN")})
	if err != nil {
		return nil, err
	}
	return &gateway{api, logger}, nil
}

// sdkConfig returns what Lambda has set in the environment. config.LoadDefaultConfig finds the same,
// but it also looks for SSO, profiles and EC2's metadata, which no function has. They cost 1 ms of a
// cold start and a tenth of the zip.
func sdkConfig() aws.Config {
	config := aws.Config{
		Region: os.Getenv("AWS_REGION"),
		Credentials: credentials.NewStaticCredentialsProvider(
			os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")),
	}
	if endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER"), os.Getenv("AWS_ENDPOINT_URL")); endpoint != "" {
		config.BaseEndpoint = aws.String(endpoint)
	}
	return config
}

// gateway gives API Gateway's requests to the API.
type gateway struct {
	api    http.Handler
	logger *slog.Logger
}

// handle answers one event. The only error it returns is errShape. An error returned for a client's
// request would count as a fault of the function, so anyone could raise its alarm.
func (g *gateway) handle(ctx context.Context, event events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	r, base, err := requestOf(ctx, event)
	if err != nil {
		g.logger.LogAttrs(ctx, slog.LevelError, "request", slog.Int("hop", 1), slog.String("error", err.Error()))
		return events.APIGatewayProxyResponse{}, err
	}
	// The header that API Gateway sends knows the trace only. Lambda's own also has the function's segment, and whether it is
	// sampled. aws-lambda-go puts it into the context under this name.
	if id, ok := ctx.Value("x-amzn-trace-id").(string); ok && id != "" {
		r.Header.Set("X-Amzn-Trace-Id", id)
	}
	w := &response{header: http.Header{}}
	g.api.ServeHTTP(w, r)
	if location := w.header.Get("Location"); location != "" {
		w.header.Set("Location", base+location)
	}
	if r.Method == http.MethodHead { // net/http leaves the body out by itself
		w.body.Reset()
	}
	return events.APIGatewayProxyResponse{StatusCode: w.status, MultiValueHeaders: w.header, Body: w.body.String()}, nil
}
