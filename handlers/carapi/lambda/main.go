// Command lambda is the car API (①②) as an AWS Lambda function behind an API Gateway REST API.
//
// In: proxy events of payload version 1.0, and the environment variables IDEMPOTENCY_HOURS (how long an Idempotency-Key is kept), and
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
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"

	"rds-outbox-demo/handlers/carapi"
	"rds-outbox-demo/internal/rdsdb"
)

// maxIdempotencyHours is 30 days: each key is a row, with the whole answer.
const maxIdempotencyHours = 720

func main() { os.Exit(run()) }

func run() int {
	logger := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	gateway, err := start(logger)
	if err != nil {
		logger.Error("starting the car API", "error", err)
		return 1
	}
	// With a heap as small as ours the collector would run every few hundred requests, for a fifth of their CPU. So it is a quarter of
	// that, and at most 16 MB instead of 4 wait for it.
	debug.SetGCPercent(400)
	lambda.Start(gateway.handle)
	return 0
}

// start is the function's init: one pool for the environment's whole life. It asks no other machine; the first request does.
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
	api, err := carapi.New(carapi.Config{Pool: pool, Logger: logger, Caller: caller, KeepKeys: time.Duration(hours) * time.Hour})
	if err != nil {
		return nil, err
	}
	return newGateway(api, logger), nil
}

// sdkConfig is what Lambda says in the environment. config.LoadDefaultConfig finds the same, and brings SSO, profiles and EC2's
// metadata along, which no function has: 1 ms of a cold start and a tenth of the zip.
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
	adapter *httpadapter.HandlerAdapter
	logger  *slog.Logger
}

func newGateway(api http.Handler, logger *slog.Logger) *gateway {
	return &gateway{httpadapter.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The header that API Gateway sends knows the trace only; Lambda's own also has the function's segment, and whether it is sampled.
		// aws-lambda-go puts it into the context under this name.
		if id, ok := r.Context().Value("x-amzn-trace-id").(string); ok && id != "" {
			r.Header.Set("X-Amzn-Trace-Id", id)
		}
		api.ServeHTTP(w, r)
	})), logger}
}

func (g *gateway) handle(ctx context.Context, event events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	response, err := g.adapter.ProxyWithContext(ctx, event)
	if err != nil {
		// The adapter could not make a request of the event: a path such as /cars/%zz. Returned as an error it would count as a
		// fault of the function, which anyone could raise the alarm with.
		g.logger.LogAttrs(ctx, slog.LevelInfo, "request", slog.Int("hop", 1), slog.String("method", event.HTTPMethod),
			slog.Int("status", http.StatusBadRequest))
		return badRequest, nil //nolint:nilerr // it is answered
	}
	// The stage (/dev) is in the address that the client used but not in the path that the API sees: an absolute path without it
	// leads nowhere. https://gist.github.com/GREsau/444c7d4d0bb9e8c82dd1a585931028bd compares the two members.
	if location := response.MultiValueHeaders["Location"]; len(location) == 1 {
		location[0] = strings.TrimSuffix(event.RequestContext.Path, event.Path) + location[0]
	}
	return response, nil
}

var badRequest = events.APIGatewayProxyResponse{
	StatusCode: http.StatusBadRequest,
	Headers:    map[string]string{"Content-Type": "application/json", "Access-Control-Allow-Origin": "*"},
	Body:       `{"error":"bad request"}`,
}
