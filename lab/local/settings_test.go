package local

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// yamlAt returns what is at path in a document of YAML.
func yamlAt(t *testing.T, file string, path ...string) any {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var at any
	require.NoError(t, yaml.Unmarshal(content, &at))
	for _, name := range path {
		members, ok := at.(map[string]any)
		require.True(t, ok && members[name] != nil, "%s has no %v", file, path)
		at = members[name]
	}
	return at
}

// mappingOf is the one event source mapping of a function, without the ARN of its source.
func mappingOf(t *testing.T, function, kind string) map[string]any {
	t.Helper()
	events := yamlAt(t, "../../serverless.yml", "functions", function, "events").([]any)
	events = slices.DeleteFunc(events, func(event any) bool { return scheduleOf(event) != nil }) // no mapping
	require.Len(t, events, 1)
	mapping := events[0].(map[string]any)[kind].(map[string]any)
	require.NotEmpty(t, mapping["arn"])
	delete(mapping, "arn")
	return mapping
}

// scheduleOf is the schedule of a function's event, or nil.
func scheduleOf(event any) map[string]any {
	schedule, _ := event.(map[string]any)["schedule"].(map[string]any)
	return schedule
}

// TestSettingsAreTheDeployedOnes compares every setting. One that is new in the files has no place here yet, and is a difference, too.
func TestSettingsAreTheDeployedOnes(t *testing.T) {
	t.Parallel()
	here := Deployed()
	consumer, stats := here.Consumer, here.CarStats
	require.True(t, consumer.OnFailure)
	require.Equal(t, map[string]any{
		"type": "kinesis", "startingPosition": "TRIM_HORIZON", // the poller's only one
		"batchSize":             consumer.BatchSize,
		"parallelizationFactor": consumer.ParallelizationFactor, "bisectBatchOnFunctionError": consumer.BisectOnError,
		"maximumRecordAgeInSeconds": int(consumer.MaxRecordAge.Seconds()),
		"maximumRetryAttempts":      -1,                        // the poller's default
		"functionResponseType":      "ReportBatchItemFailures", // as the poller always does
		"destinations":              map[string]any{"onFailure": map[string]any{"type": "sqs", "arn": "ConsumerDiscards.Arn"}},
	}, mappingOf(t, "cdcConsumer", "stream"))
	require.Equal(t, int(consumer.Timeout.Seconds()), yamlAt(t, "../../serverless.yml", "functions", "cdcConsumer", "timeout"))

	require.Equal(t, map[string]any{
		"batchSize": stats.BatchSize, "maximumConcurrency": stats.Concurrency, "functionResponseType": "ReportBatchItemFailures",
	}, mappingOf(t, "carStats", "sqs"))
	require.Equal(t, int(stats.Timeout.Seconds()), yamlAt(t, "../../serverless.yml", "functions", "carStats", "timeout"))
	events := yamlAt(t, "../../serverless.yml", "functions", "carStats", "events").([]any)
	asks := slices.IndexFunc(events, func(event any) bool { return scheduleOf(event) != nil })
	require.GreaterOrEqual(t, asks, 0)
	require.Equal(t, time.Minute, stats.Schedule)
	require.Equal(t, map[string]any{"rate": "rate(1 minute)", "enabled": "${param:carStatsInOrder}"}, scheduleOf(events[asks]))
	require.Zero(t, stats.AskAfter, "the function does not set it")
	const statsFile = "../../infra/carstats.yml"
	require.Equal(t, int(stats.VisibilityTimeout.Seconds()), yamlAt(t, statsFile, "Resources", "CarStatsQueue", "Properties", "VisibilityTimeout"))
	require.Equal(t, stats.MaxReceives, yamlAt(t, statsFile, "Resources", "CarStatsQueue", "Properties", "RedrivePolicy", "maxReceiveCount"))
	var types []any
	for _, one := range stats.DetailTypes {
		types = append(types, one)
	}
	require.Equal(t, map[string]any{"source": []any{stats.Source}, "detail-type": types},
		yamlAt(t, statsFile, "Resources", "CarStatsRule", "Properties", "EventPattern"))

	wal := yamlAt(t, "../../serverless.yml", "params", "dev", "slotWal")
	database := yamlAt(t, "../../infra/database.yml", "Resources", "DatabaseParameters", "Properties", "Parameters").(map[string]any)
	require.Equal(t, "${param:slotWal}", database["max_slot_wal_keep_size"])
	require.Equal(t, fmt.Sprintf("%sMB", wal), here.Postgres["max_slot_wal_keep_size"])
	require.Equal(t, fmt.Sprintf("%sms", database["wal_sender_timeout"]), here.Postgres["wal_sender_timeout"])
}

// TestOverridesAreNamed compares the set-ups of this machine with the deployed one. Each difference
// must be on these lists.
func TestOverridesAreNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settings Settings
		differ   []string
	}{
		"ForPeople": {ForPeople(), []string{
			"CarStats.AskAfter", "CarStats.Concurrency", "CarStats.Schedule", "CarStats.Timeout", "CarStats.VisibilityTimeout",
			"Consumer.Timeout", "Postgres.max_slot_wal_keep_size",
		}},
		"ForChaos": {ForChaos(), []string{
			"CarStats.AskAfter", "CarStats.MaxReceives", "CarStats.Schedule", "CarStats.Timeout", "CarStats.VisibilityTimeout", "Consumer.Timeout",
			"Postgres.max_prepared_transactions", "Postgres.max_slot_wal_keep_size", "Postgres.wal_sender_timeout",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deployed, here := flat(t, Deployed()), flat(t, test.settings)
			var differ []string
			for setting := range deployed {
				if deployed[setting] != here[setting] {
					differ = append(differ, setting)
				}
			}
			for setting := range here {
				if _, known := deployed[setting]; !known {
					differ = append(differ, setting)
				}
			}
			require.ElementsMatch(t, test.differ, differ)
		})
	}
}

// flat has each setting under its name.
func flat(t *testing.T, s Settings) map[string]string {
	t.Helper()
	content, err := json.Marshal(s)
	require.NoError(t, err)
	var groups map[string]map[string]any
	require.NoError(t, json.Unmarshal(content, &groups))
	all := map[string]string{}
	for group, members := range groups {
		for name, value := range members {
			all[group+"."+name] = fmt.Sprint(value)
		}
	}
	return all
}
