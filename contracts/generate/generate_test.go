package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGoldenFiles generates from testdata, where a contract has every kind of member, and compares with testdata/golden.
// UPDATE_GOLDEN=1 writes the files anew.
func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, generate("testdata", dir))
	for _, file := range []string{"eventtypes/eventtypes.go", "asyncapi.yaml"} {
		got, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		golden := filepath.Join("testdata/golden", filepath.Base(file)+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
			require.NoError(t, os.WriteFile(golden, got, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
	output, err := exec.CommandContext(t.Context(), "go", "vet", filepath.Join(dir, "eventtypes/eventtypes.go")).CombinedOutput()
	require.NoError(t, err, "it compiles: %s", output)
}

func TestRefusedContracts(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile("testdata/contracts/ShipmentSent.v2.json")
	require.NoError(t, err)
	for name, test := range map[string]struct{ before, after, want string }{
		"UnknownKeyword":       {`"minimum": 1`, `"maximum": 1`, "field maximum not found"},
		"TwoTypes":             {`["boolean", "null"]`, `["boolean", "string"]`, "ShipmentSent.v2.json: eventData.boxes[].fragile has types [boolean string]"},
		"UnknownType":          {`"number"`, `"file"`, "eventData.to.at[] has the unknown type file"},
		"NoType":               {`"city": {"type": "string"}`, `"city": {}`, "eventData.to.city has types []"},
		"ArrayWithoutItems":    {`, "items": {"type": "number"}`, ``, "eventData.to.at is an array without items"},
		"NoEventData":          {`"eventData": {`, `"data": {`, "there is no member detail.eventData"},
		"SeveralAggregateType": {`["Shipment"]`, `["Shipment", "Car"]`, "detail.aggregateType has 2 values"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.Contains(t, string(good), test.before)
			bad := strings.Replace(string(good), test.before, test.after, 1)
			require.NoError(t, os.Mkdir(filepath.Join(dir, "contracts"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "contracts/ShipmentSent.v2.json"), []byte(bad), 0o644))
			require.ErrorContains(t, generate(dir, dir), test.want)
		})
	}
	require.ErrorContains(t, generate(t.TempDir(), t.TempDir()), "there are no contracts")
}

func TestWhatTheBusIsDescribedByIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ file, text, want string }{
		"NoExample":      {"handlers/carapi/testdata/ShipmentSent.v2.json", "", "making the example of ShipmentSent.v2: 0 files"},
		"NoBus":          {"infra/bus.yml", "Resources: {}", "in which there is no stage"},
		"ABrokenStack":   {"serverless.yml", "service: [", "reading serverless.yml"},
		"ABrokenExample": {"docs/record-format/6-target.json", "{", "unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS("testdata")))
			require.NoError(t, os.Remove(filepath.Join(dir, test.file)))
			if test.text != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, test.file), []byte(test.text), 0o644))
			}
			require.ErrorContains(t, generate(dir, t.TempDir()), test.want)
		})
	}
}
