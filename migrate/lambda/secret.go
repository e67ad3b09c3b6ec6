package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"rds-outbox-demo/internal/dbuser"
)

// secretTimeout bounds one call. The SDK has no limit of its own, and in a subnet without a way to Secrets Manager a call would hang.
const secretTimeout = 5 * time.Second

// secret is a user's secret. Further members, such as host and port for AWS DMS, are kept.
type secret struct {
	arn     string
	login   dbuser.Login
	members map[string]json.RawMessage
}

// read returns the current version. Its errors never quote it.
func (j *job) read(ctx context.Context, arn string) (secret, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	out, err := j.secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(arn)})
	if err != nil {
		return secret{}, fmt.Errorf("reading secret %s: %w", arn, err)
	}
	s := secret{arn: arn}
	value := []byte(aws.ToString(out.SecretString))
	// encoding/json's errors quote the text that they could not read, so they are not passed on.
	if json.Unmarshal(value, &s.members) != nil || json.Unmarshal(s.members["username"], &s.login.Name) != nil ||
		json.Unmarshal(s.members["password"], &s.login.Password) != nil {
		return secret{}, fmt.Errorf("reading secret %s: its value must be a JSON object with username and password", arn)
	}
	return s, nil
}

// write stores s as the new current version and returns the version's id.
func (j *job) write(ctx context.Context, s secret) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	password, err := json.Marshal(s.login.Password)
	if err != nil {
		return "", errors.New("encoding the password")
	}
	s.members["password"] = password
	value, err := json.Marshal(s.members)
	if err != nil {
		return "", errors.New("encoding the secret")
	}
	out, err := j.secrets.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: aws.String(s.arn), SecretString: aws.String(string(value)),
	})
	if err != nil {
		return "", fmt.Errorf("writing secret %s: %w", s.arn, err)
	}
	return aws.ToString(out.VersionId), nil
}
