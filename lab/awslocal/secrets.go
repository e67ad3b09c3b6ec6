package awslocal

import (
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// secrets holds the secrets in memory only.
type secrets struct {
	values sync.Map // of texts, by name
	opened time.Time
}

func openSecrets(conf Config) *secrets {
	s := &secrets{opened: conf.Now()}
	for name, value := range conf.Secrets {
		s.values.Store(name, value)
	}
	return s
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
	value, ok := s.values.Load(name)
	if !ok {
		return nil, clientError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	return map[string]any{
		"ARN":           secretARN + name + secretSuffix,
		"Name":          name,
		"SecretString":  value,
		"VersionId":     uuid.NewSHA1(uuid.NameSpaceURL, []byte(name+"\x00"+value.(string))).String(), // a new value is a new version
		"VersionStages": []string{"AWSCURRENT"},
		"CreatedDate":   float64(s.opened.UnixMilli()) / 1000,
	}, nil
}
