// Command empty is a Lambda function that does nothing. It shows the cost of Go and of the Runtime API.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() error { return nil }) }
