package main

import (
	"net/http"
	"strings"
)

// anonymous is everybody whom API Gateway has not asked who they are, as in stage dev.
const anonymous = "anonymous"

// caller says who sent a request, by what API Gateway's authorizer has found out: a member of a Cognito user or identity pool, an IAM
// user or role, or the principal of a Lambda authorizer. The members of requestContext are described at
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
		return "identity " + id // before the ARN: its users share a role
	}
	if arn := c.Identity.UserArn; arn != "" {
		return "arn " + withoutSession(arn)
	}
	return anonymous
}

// withoutSession makes arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION end with the role. A service's tasks have a session each, and the
// one that tries again need not be the one that tried.
func withoutSession(arn string) string {
	if parts := strings.Split(arn, "/"); len(parts) == 3 && strings.HasSuffix(parts[0], ":assumed-role") {
		return parts[0] + "/" + parts[1]
	}
	return arn
}
