package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// errShape names the event that the function understands. Other events have no httpMethod or no
// resource. Answering one as a request would hide that the function is connected to the wrong source.
var errShape = errors.New("the event is not an API Gateway REST API proxy event (payload version 1.0, with resource, path and httpMethod): " +
	"a payload version 2.0, a function URL, a load balancer and the console's other samples are not supported")

type contextKey struct{}

// gatewayContext returns API Gateway's facts about a request, such as who sent it.
func gatewayContext(ctx context.Context) (events.APIGatewayProxyRequestContext, bool) {
	c, ok := ctx.Value(contextKey{}).(events.APIGatewayProxyRequestContext)
	return c, ok
}

// requestOf makes a request from an event, and returns the base that the client's addresses have
// before the API's paths. It accepts every path and body, because the API answers and logs their
// errors as for any other client. It does not use aws-lambda-go-api-proxy, which prints the paths that
// it cannot read, so that a client's line ends become lines of the log.
func requestOf(ctx context.Context, event events.APIGatewayProxyRequest) (r *http.Request, base string, err error) {
	if event.HTTPMethod == "" || event.Resource == "" || event.Path == "" {
		return nil, "", errShape
	}
	own := ownPath(event)
	// The address that the client used has the stage (/dev) or the base path of a custom domain. A
	// Location without it is a wrong address.
	// https://gist.github.com/GREsau/444c7d4d0bb9e8c82dd1a585931028bd compares the two members.
	base, ok := strings.CutSuffix(event.RequestContext.Path, own)
	if !ok {
		base = strings.TrimSuffix(event.Path, own)
	}
	target := &url.URL{Path: own, RawQuery: queryOf(event)}
	if decoded, err := url.PathUnescape(own); err == nil {
		target.Path, target.RawPath = decoded, own
	}
	r = &http.Request{
		Method: event.HTTPMethod, URL: target, RequestURI: target.RequestURI(), Host: event.RequestContext.DomainName,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: bodyOf(event), RemoteAddr: event.RequestContext.Identity.SourceIP,
	}
	for name, values := range event.MultiValueHeaders {
		for _, value := range values {
			r.Header.Add(name, value)
		}
	}
	if event.MultiValueHeaders == nil { // the console's test event
		for name, value := range event.Headers {
			r.Header.Add(name, value)
		}
	}
	return r.WithContext(context.WithValue(ctx, contextKey{}, event.RequestContext)), base, nil
}

// ownPath returns the event's path without the base path of a custom domain. Member path has the base
// path. Member resource, the route that API Gateway has found, does not
// (https://github.com/awslabs/aws-lambda-go-api-proxy/issues/82). If the two do not fit together,
// ownPath returns the whole path, and the API has no such route.
func ownPath(event events.APIGatewayProxyRequest) string {
	route, sent := strings.Split(event.Resource, "/")[1:], strings.Split(event.Path, "/")
	if len(sent) <= len(route) {
		return event.Path
	}
	base, own := sent[:len(sent)-len(route)], sent[len(sent)-len(route):]
	for i, part := range route {
		if part != own[i] && !strings.HasPrefix(part, "{") {
			return event.Path
		}
	}
	// //cars is not the route /cars behind a base path.
	if prefix := strings.Join(base, "/"); prefix != "" && (prefix == "/" || path.Clean(prefix) != prefix) {
		return event.Path
	}
	return "/" + strings.Join(own, "/")
}

func queryOf(event events.APIGatewayProxyRequest) string {
	query := url.Values(event.MultiValueQueryStringParameters)
	if len(query) == 0 {
		query = url.Values{}
		for name, value := range event.QueryStringParameters {
			query.Set(name, value)
		}
	}
	return query.Encode()
}

func bodyOf(event events.APIGatewayProxyRequest) io.ReadCloser {
	if !event.IsBase64Encoded {
		return io.NopCloser(strings.NewReader(event.Body))
	}
	return io.NopCloser(base64.NewDecoder(base64.StdEncoding, strings.NewReader(event.Body)))
}

// response collects an answer.
type response struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *response) Header() http.Header         { return r.header }
func (r *response) WriteHeader(status int)      { r.status = status }
func (r *response) Write(p []byte) (int, error) { return r.body.Write(p) }
