package main

import (
	"net/http"
	"strings"
)

// anonymous is every caller that API Gateway has not authenticated, as in stage dev.
const anonymous = "anonymous"

// caller returns who sent a request, according to API Gateway's authorizer. That is a member of a
// Cognito user or identity pool, an IAM user or role, or the principal of a Lambda authorizer. The
// members of requestContext are described at
// https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html
func caller(r *http.Request) string {
	c, ok := gatewayContext(r.Context())
	if !ok {
		return anonymous
	}
	if claims, ok := c.Authorizer["claims"].(map[string]any); ok {
		if sub, _ := claims["sub"].(string); sub != "" {
			return "sub " + sub
		}
	}
	if principal, _ := c.Authorizer["principalId"].(string); principal != "" {
		return "principal " + principal
	}
	if id := c.Identity.CognitoIdentityID; id != "" {
		return "identity " + id // before the ARN, because the users of an identity pool share a role
	}
	if arn := c.Identity.UserArn; arn != "" {
		return "arn " + withoutSession(arn)
	}
	return anonymous
}

// withoutSession returns arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION without the session. Each task
// of a service has its own session, and another task may send a request again.
func withoutSession(arn string) string {
	if parts := strings.Split(arn, "/"); len(parts) == 3 && strings.HasSuffix(parts[0], ":assumed-role") {
		return parts[0] + "/" + parts[1]
	}
	return arn
}
