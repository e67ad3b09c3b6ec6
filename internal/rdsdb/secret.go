package rdsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// secretTimeout bounds one read. The SDK has no limit of its own, and in a subnet without a way to Secrets Manager its call
// would hang until the function's end.
const secretTimeout = 5 * time.Second

// secret is the password in Secrets Manager, read once and remembered.
type secret struct {
	client *secretsmanager.Client
	arn    string
	user   string

	mu       sync.Mutex
	password string // empty: not known
}

// get returns the password. Its errors never quote the secret.
func (s *secret) get(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.password != "" {
		return s.password, nil
	}
	password, err := s.read(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the database password from secret %s: %w", s.arn, err)
	}
	s.password = password
	return password, nil
}

func (s *secret) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = ""
}

func (s *secret) read(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	out, err := s.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(s.arn)})
	if err != nil {
		return "", err
	}
	var value struct{ Username, Password string }
	// encoding/json's error quotes what it could not read, so it is not passed on.
	if json.Unmarshal([]byte(aws.ToString(out.SecretString)), &value) != nil || value.Password == "" {
		return "", errors.New("its value must be a JSON object with username and password")
	}
	// The other user's password would be refused with an error that does not say why. Rotation that alternates between two users is
	// not supported.
	if value.Username != "" && value.Username != s.user {
		return "", fmt.Errorf("it is of user %q, and DB_USER is %q: set DB_USER to the secret's user", value.Username, s.user)
	}
	return value.Password, nil
}
