package awslocal

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// secrets holds the secrets in memory only.
type secrets struct {
	mu     sync.Mutex
	values map[string]string
	opened time.Time
}

func openSecrets(conf Config) *secrets {
	s := &secrets{values: map[string]string{}, opened: conf.Now()}
	maps.Copy(s.values, conf.Secrets)
	return s
}

func (s *secrets) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

func (s *secrets) operations() map[string]operation {
	return map[string]operation{"GetSecretValue": handle(s.getSecretValue)}
}

type getSecretValueInput struct {
	SecretId     string
	VersionStage string
}

const secretARN = "arn:aws:secretsmanager:" + Region + ":" + Account + ":secret:"

// secretSuffix stands for the six random characters that the service puts behind a secret's name in its ARN.
const secretSuffix = "-A1b2C3"

func (s *secrets) getSecretValue(_ *call, in *getSecretValueInput) (any, error) {
	if in.VersionStage != "" && in.VersionStage != "AWSCURRENT" {
		return nil, clientError("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: "+in.VersionStage)
	}
	name := in.SecretId
	if rest, ok := strings.CutPrefix(name, secretARN); ok {
		name = strings.TrimSuffix(rest, secretSuffix)
	}
	s.mu.Lock()
	value, ok := s.values[name]
	s.mu.Unlock()
	if !ok {
		return nil, clientError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	return map[string]any{
		"ARN":           secretARN + name + secretSuffix,
		"Name":          name,
		"SecretString":  value,
		"VersionId":     uuid.NewSHA1(uuid.NameSpaceURL, []byte(name+"\x00"+value)).String(), // a new value is a new version
		"VersionStages": []string{"AWSCURRENT"},
		"CreatedDate":   float64(s.opened.UnixMilli()) / 1000,
	}, nil
}
