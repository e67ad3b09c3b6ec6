package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/stretchr/testify/require"
)

func TestSBOM(t *testing.T) {
	t.Chdir("../..")
	out := t.TempDir()
	require.NoError(t, run(t.Context(), out, []string{"package-lock.json"}))
	first, err := os.ReadFile(filepath.Join(out, "rds-outbox-demo.cdx.json"))
	require.NoError(t, err)
	require.NoError(t, run(t.Context(), out, []string{"package-lock.json"}))
	second, err := os.ReadFile(filepath.Join(out, "rds-outbox-demo.cdx.json"))
	require.NoError(t, err)
	require.Equal(t, string(first), string(second), "the same sources have the same bill")

	var bill cdx.BOM
	require.NoError(t, json.Unmarshal(first, &bill))
	scopes := map[string]cdx.Scope{}
	for _, component := range *bill.Components {
		require.NotEmpty(t, component.Version, component.PackageURL)
		scopes[component.Name] = component.Scope
	}
	for _, module := range []string{"stdlib", "github.com/jackc/pgx/v5", "github.com/aws/aws-lambda-go", "github.com/aws/aws-sdk-go-v2/service/eventbridge"} {
		require.Contains(t, scopes, module)
		require.Empty(t, scopes[module])
	}
	for _, tool := range []string{"osls", "axe-core", "@apidevtools/json-schema-ref-parser"} {
		require.Equal(t, cdx.ScopeExcluded, scopes[tool])
	}
	require.NotContains(t, scopes, "github.com/stretchr/testify", "no program is made of it")
	require.NotContains(t, scopes, "rds-outbox-demo")
}

func TestSBOMNeedsALockFile(t *testing.T) {
	t.Chdir("../..")
	require.ErrorContains(t, run(t.Context(), t.TempDir(), []string{"no-such-lock.json"}), "no-such-lock.json")
}
