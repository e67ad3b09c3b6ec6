package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/lambdarun"
)

// underBase is the event behind a custom domain whose base path mapping is the base.
func underBase(event events.APIGatewayProxyRequest, base string) events.APIGatewayProxyRequest {
	event.Path = base + event.Path
	event.RequestContext.Path = event.Path // the mapping has the stage
	return event
}

func TestBehindABasePath(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "/shop", "/shop/v2"} {
		g, _ := setup(t)
		created := send(t, g, underBase(sample(t, "post-cars.json", ""), base))
		require.Equal(t, 201, created.StatusCode, created.Body)
		location := created.MultiValueHeaders["Location"][0]
		id, ok := strings.CutPrefix(location, base+"/cars/")
		require.True(t, ok, location)
		require.Equal(t, 200, send(t, g, underBase(sample(t, "get-car.json", id), base)).StatusCode)
		gone := sample(t, "get-car.json", id)
		gone.HTTPMethod = "DELETE"
		require.Equal(t, 204, send(t, g, underBase(gone, base)).StatusCode)
	}
}

func TestPathsAreAnsweredByTheAPI(t *testing.T) {
	t.Parallel()
	g, db := setup(t)
	for name, test := range map[string]struct {
		method, path string
		status       int
	}{
		"List":            {"GET", "/cars", 200},
		"Twice":           {"GET", "//cars", 404},
		"TwiceInBase":     {"GET", "/shop//cars", 404},
		"Dots":            {"GET", "/x/../cars", 404},
		"OtherRoute":      {"GET", "/shop/trucks", 404},
		"NotAnURL":        {"GET", "/%zz/cars", 200}, // a base path is the operator's
		"QueryInPath":     {"GET", "/cars?limit=x", 404},
		"LineEnd":         {"GET", "/cars\n{\"level\":\"ERROR\"}", 404},
		"OtherLetters":    {"GET", "/cars/äö ü", 404},
		"MethodItLacks":   {"PUT", "/cars", 405},
		"MethodNobodyHas": {"BREW", "/cars", 405},
		"Preflight":       {"OPTIONS", "/cars", 200},
		"Head":            {"HEAD", "/cars", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event := sample(t, "post-cars.json", "")
			event.HTTPMethod, event.Path = test.method, test.path
			answer := send(t, g, event)
			require.Equal(t, test.status, answer.StatusCode, answer.Body)
			require.Equal(t, []string{"*"}, answer.MultiValueHeaders["Access-Control-Allow-Origin"])
			require.Equal(t, []string{"application/json"}, answer.MultiValueHeaders["Content-Type"])
			if test.method == "HEAD" {
				require.Empty(t, answer.Body)
			}
			if test.status == 405 {
				require.Equal(t, []string{"GET, HEAD, POST, OPTIONS"}, answer.MultiValueHeaders["Allow"])
			}
		})
	}
	t.Cleanup(func() {
		var cars int
		if err := db.Pool.QueryRow(context.Background(), "SELECT count(*) FROM cars").Scan(&cars); err != nil || cars != 0 {
			t.Errorf("%d cars, %v", cars, err)
		}
	})
}

func TestParametersComeDecoded(t *testing.T) {
	t.Parallel()
	event := sample(t, "post-cars.json", "")
	event.MultiValueQueryStringParameters = map[string][]string{"limit": {"1", "2"}, "a;b": {"x&y=z"}}
	r, base, err := requestOf(t.Context(), event)
	require.NoError(t, err)
	require.Equal(t, "/dev", base)
	require.Equal(t, event.MultiValueQueryStringParameters, map[string][]string(r.URL.Query()))
	event.MultiValueQueryStringParameters, event.QueryStringParameters = nil, map[string]string{"limit": "7"}
	r, _, err = requestOf(t.Context(), event)
	require.NoError(t, err)
	require.Equal(t, "limit=7", r.URL.RawQuery)
}

// The console's sample for API Gateway has a path that the API does not know. The other samples are not events of API Gateway.
func TestEventsOfOtherShapes(t *testing.T) {
	t.Parallel()
	g, _ := setup(t)
	require.Equal(t, 404, send(t, g, sample(t, "console-proxy.json", "")).StatusCode)

	var helloWorld events.APIGatewayProxyRequest
	require.NoError(t, json.Unmarshal([]byte(`{"key1":"value1","key2":"value2"}`), &helloWorld))
	for name, event := range map[string]events.APIGatewayProxyRequest{
		"Empty": {}, "HelloWorld": helloWorld, "HTTPAPI": sample(t, "http-api.json", ""), "LoadBalancer": sample(t, "load-balancer.json", ""),
	} {
		_, err := g.handle(t.Context(), event)
		require.ErrorIs(t, err, errShape, name)
	}
	require.ErrorContains(t, errShape, "API Gateway REST API proxy event (payload version 1.0")
}

// members are all that a line of the log may have. A metric, which CloudWatch would take from any line, is not among them.
var members = []string{"time", "level", "msg", "hop", "method", "route", "status", "duration_ms", "trace_id", "event_id", "replayed", "error"}

func TestAClientWritesNoLineIntoTheLog(t *testing.T) {
	t.Parallel()
	const metric = `{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"x","Dimensions":[[]],"Metrics":[{"Name":"n"}]}]},"n":1}`
	hostile := "\n" + metric + "\n\x1b[31m%zz\u2028"
	var all []events.APIGatewayProxyRequest
	add := func(change func(*events.APIGatewayProxyRequest)) {
		event := sample(t, "post-cars.json", "")
		change(&event)
		all = append(all, event)
	}
	for _, text := range []string{hostile, "/cars/%zz", "/%00", "/cars/" + hostile, "//" + hostile, "?" + hostile, "/" + strings.Repeat("%", 5000)} {
		add(func(e *events.APIGatewayProxyRequest) { e.Path = text })
		add(func(e *events.APIGatewayProxyRequest) { e.Path, e.RequestContext.Path = "/cars", text })
		add(func(e *events.APIGatewayProxyRequest) { e.HTTPMethod = text })
		add(func(e *events.APIGatewayProxyRequest) { e.Body = text })
		add(func(e *events.APIGatewayProxyRequest) { e.Body, e.IsBase64Encoded = text, true })
		add(func(e *events.APIGatewayProxyRequest) {
			e.HTTPMethod, e.MultiValueQueryStringParameters = "GET", map[string][]string{"limit": {text}, text: {text}}
		})
		for _, header := range []string{"Idempotency-Key", "If-Match", "Traceparent", "X-Amzn-Trace-Id", text} {
			add(func(e *events.APIGatewayProxyRequest) {
				e.MultiValueHeaders = map[string][]string{header: {text, text}}
			})
		}
	}
	all = append(all, sample(t, "http-api.json", ""), events.APIGatewayProxyRequest{})
	command, output := program(t, map[string]string{ // nothing listens on port 1
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:1", "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "x", "DB_USER": "x", "DB_SECRET_ARN": "x", "DB_SSL": "false", "IDEMPOTENCY_HOURS": "3",
	})
	function, err := lambdarun.Start(command)
	require.NoError(t, err)
	t.Cleanup(function.Close)
	for _, event := range all {
		data, err := json.Marshal(event)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
		_, err = function.Invoke(ctx, data, 300*time.Millisecond)
		cancel()
		require.NoError(t, err)
	}
	labtest.Eventually(t, "one line a request", func() bool { // aws-lambda-go logs each error that the function returns, too
		return strings.Count(output.String(), `"msg":"request"`) == len(all) && strings.HasSuffix(output.String(), "\n")
	})
	for line := range strings.Lines(output.String()) {
		var parsed map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &parsed), "%q", line)
		for member := range parsed {
			require.Contains(t, members, member)
		}
	}
}
