package contracts_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"rds-outbox-demo/contracts"
)

// The parser of AsyncAPI checks the document, in make verify. It does not hold the examples against their schemas.
func TestAsyncAPISaysWhatTheContractsSay(t *testing.T) {
	t.Parallel()
	var document struct {
		Channels   map[string]schema
		Components struct {
			Messages map[string]struct {
				Bindings struct {
					EventBridge map[string]string `yaml:"x-eventbridge"`
				}
				Payload  schema
				Examples []struct{ Payload schema }
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(contracts.AsyncAPI, &document))
	require.Equal(t, "rds-outbox-demo-{stage}-outbox", document.Channels["bus"]["address"])

	files := load(t, ".")
	messages := document.Components.Messages
	require.Len(t, messages, len(files))
	require.Len(t, document.Channels["bus"]["messages"], len(files))
	for name, contract := range files {
		eventType := contract["x-amazon-events-detail-type"].(string)
		m := messages[eventType]
		require.Equal(t, map[string]string{"source": contract["x-amazon-events-source"].(string), "detailType": eventType}, m.Bindings.EventBridge, name)
		require.Len(t, m.Examples, 1, name)
		require.NoError(t, compile(t, contract).Validate(asJSON(t, m.Examples[0].Payload)), name)
		require.Equal(t, eventType, m.Examples[0].Payload["detail-type"])

		delete(contract, "$schema")
		require.Equal(t, contract, asJSON(t, m.Payload), name)
	}
}

// asJSON returns what a JSON decoder makes of the value.
func asJSON(t *testing.T, value any) any {
	t.Helper()
	data, err := json.Marshal(value)
	require.NoError(t, err)
	return parse(t, data)
}
