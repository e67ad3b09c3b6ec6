package awslocal_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestGetSecretValue(t *testing.T) {
	t.Parallel()
	server, cfg := start(t, awslocal.Config{Secrets: map[string]string{"db/password": `{"password":"old"}`}})
	c := sdk.NewFromConfig(cfg)
	get := func(id string) (*sdk.GetSecretValueOutput, error) {
		return c.GetSecretValue(t.Context(), &sdk.GetSecretValueInput{SecretId: &id})
	}
	before, err := get("db/password")
	require.NoError(t, err)
	require.Equal(t, `{"password":"old"}`, *before.SecretString)
	require.Equal(t, []string{"AWSCURRENT"}, before.VersionStages)
	server.SetSecret("db/password", `{"password":"new"}`)
	after, err := get(*before.ARN)
	require.NoError(t, err)
	require.Equal(t, `{"password":"new"}`, *after.SecretString)
	require.Equal(t, "db/password", *after.Name)
	require.NotEqual(t, *before.VersionId, *after.VersionId)

	_, err = get("absent")
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
	require.Equal(t, "Secrets Manager can't find the specified secret.", message(t, err))
	_, err = c.GetSecretValue(t.Context(), &sdk.GetSecretValueInput{SecretId: aws.String("db/password"), VersionStage: aws.String("AWSPENDING")})
	require.ErrorAs(t, err, new(*types.ResourceNotFoundException))
}
