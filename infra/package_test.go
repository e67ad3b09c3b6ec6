package infra_test

import (
	"archive/zip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// osls skips a deployment if template and zips are those of the last one. It ignores S3 keys, which
// contain the time.
func TestPackagingIsRepeatable(t *testing.T) {
	t.Parallel()
	first := packaged(t, "dev")
	dir, err := copyTree(first.dir)
	require.NoError(t, err)
	second, err := packageIn(dir, "dev")
	require.NoError(t, err)
	key := regexp.MustCompile(`"S3Key":"[^"]*"`)
	for i, s := range []*stack{first, second} {
		for _, id := range s.of("AWS::Lambda::Function") {
			require.Regexp(t, key, jsonOf(t, s.Resources[id]), "%d %s", i, id)
		}
	}
	require.Equal(t, key.ReplaceAllString(jsonOf(t, first.Resources), ""), key.ReplaceAllString(jsonOf(t, second.Resources), ""))
	for _, name := range []string{"createCar", "cdcConsumer", "retention", "carStats", "canary", "migrate"} {
		require.Equal(t, hashOf(t, first, name), hashOf(t, second, name), name)
	}
}

func jsonOf(t testing.TB, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	require.NoError(t, err)
	return string(data)
}

func hashOf(t testing.TB, s *stack, name string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, ".serverless", name+".zip"))
	require.NoError(t, err)
	return sha256.Sum256(data)
}

func TestZipsHoldAnExecutableBootstrap(t *testing.T) {
	t.Parallel()
	s := packaged(t, "dev")
	for _, name := range []string{"createCar", "cdcConsumer", "retention", "carStats", "canary", "migrate"} {
		archive, err := zip.OpenReader(filepath.Join(s.dir, ".serverless", name+".zip"))
		require.NoError(t, err)
		require.Len(t, archive.File, 1, name)
		require.Equal(t, "bootstrap", archive.File[0].Name)
		require.Equal(t, os.FileMode(0o755), archive.File[0].Mode())
		require.NoError(t, archive.Close())
	}
}

func TestFunctionsAreBuiltForARM64(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "infra"), os.DirFS(".")))
	for name, content := range map[string]string{"go.mod": "module rds-outbox-demo\n\ngo 1.26\n", "small/main.go": "package main\n\nfunc main() {}\n"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	for arch, machine := range map[string]elf.Machine{"": elf.EM_AARCH64, "amd64": elf.EM_X86_64} {
		command := exec.CommandContext(t.Context(), "go", "run", "./infra/lambdazip", "-out", "out", "f=small")
		command.Dir = dir
		command.Env = append(os.Environ(), "LAMBDA_GOARCH="+arch)
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s", output)
		binary, err := elf.Open(filepath.Join(unzip(t, filepath.Join(dir, "out", "f.zip")), "bootstrap"))
		require.NoError(t, err)
		require.Equal(t, machine, binary.Machine)
		require.NoError(t, binary.Close())
	}
	command := exec.CommandContext(t.Context(), "go", "run", "./infra/lambdazip", "-out", "out", "f=small")
	command.Dir, command.Env = dir, append(os.Environ(), "LAMBDA_GOARCH=arm")
	output, err := command.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(output), `LAMBDA_GOARCH is "arm": set it to arm64 or amd64`)
}

func unzip(t testing.TB, file string) string {
	t.Helper()
	dir := t.TempDir()
	archive, err := zip.OpenReader(file)
	require.NoError(t, err)
	defer archive.Close()
	require.NoError(t, os.CopyFS(dir, archive))
	return dir
}

func TestCompileErrorFailsThePackage(t *testing.T) {
	t.Parallel()
	needOsls(t)
	dir, err := copyTree("..")
	require.NoError(t, err)
	main := filepath.Join(dir, "handlers", "carapi", "lambda", "main.go")
	require.NoError(t, os.WriteFile(main, []byte("package main\n\nfunc main() { undefined() }\n"), 0o600))
	output, err := osls(dir, "package", "--stage", "dev")
	require.Error(t, err)
	require.Contains(t, output, "undefined: undefined")
	require.Contains(t, output, "Building the functions failed")
	require.NoFileExists(t, filepath.Join(dir, ".serverless", "cloudformation-template-update-stack.json"))
}

// A typing mistake must not deploy a stage with somebody else's settings.
func TestUnknownStageIsRefused(t *testing.T) {
	t.Parallel()
	needOsls(t)
	dir, err := copyTree("..")
	require.NoError(t, err)
	for _, command := range []string{"package", "deploy"} {
		output, err := osls(dir, command, "--stage", "production")
		require.Error(t, err)
		require.Contains(t, output, `stage "production" is unknown: use dev or prod`)
		require.Equal(t, 1, strings.Count(output, "Cannot resolve variable"), "not every parameter that is missing")
	}
}

func TestCfnLint(t *testing.T) {
	_, err := exec.LookPath("cfn-lint")
	absent(t, err, "pip install cfn-lint==1.51.0")
	forEachStage(t, func(t *testing.T, _ string, s *stack) {
		for _, name := range []string{"create", "update"} {
			file := filepath.Join(s.dir, ".serverless", "cloudformation-template-"+name+"-stack.json")
			output, err := exec.CommandContext(t.Context(), "cfn-lint", "--", file).CombinedOutput()
			require.NoError(t, err, "%s", output)
		}
	})
}
