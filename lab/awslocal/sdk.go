package awslocal

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"rds-outbox-demo/internal/sdkhttp"
)

// SDKConfig makes the SDK's clients talk to the listener at endpoint, such as http://127.0.0.1:4566, with credentials that are no
// good anywhere else. Nothing of it comes from the environment.
func SDKConfig(endpoint string) aws.Config {
	return aws.Config{
		Region:       Region,
		BaseEndpoint: aws.String(endpoint),
		HTTPClient:   sdkhttp.Client(nil),
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
	}
}
