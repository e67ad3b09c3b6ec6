// Package infra_test packages serverless.yml with the real osls, for both stages and without
// credentials, and checks the compiled template. Then it runs the zips behind a small Lambda
// Runtime API.
package infra_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// stages are the ones that serverless.yml describes.
var stages = []string{"dev", "prod"}

// forEachStage runs check on the compiled template of every stage.
func forEachStage(t *testing.T, check func(t *testing.T, stage string, stack *stack)) {
	t.Parallel()
	for _, stage := range stages {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			check(t, stage, packaged(t, stage))
		})
	}
}

// withParameters packages prod with every parameter that can be given when deploying.
func withParameters(t testing.TB) *stack {
	return packaged(t, "prod", "passwordVersion=2", "alarmEmail=ops@example.com", "retentionEnabled=true", "carStatsInOrder=true", "contractRegistry=false", "zones=us-east-1b, us-east-1d",
		"apiAuthorizer=arn:aws:cognito-idp:us-east-1:000000000000:userpool/us-east-1_abc", "corsOrigin=https://cars.example")
}

// stack is a packaged stage.
type stack struct {
	dir       string // with .serverless/
	Resources map[string]resource
	Outputs   map[string]any
	Rest      map[string]any // the template's other sections
	custom    map[string]any // of serverless.yml, as resolved
}

type resource struct {
	Type                                string
	DeletionPolicy, UpdateReplacePolicy string
	DependsOn                           []string
	Properties                          map[string]any
}

// of returns the ids of a type, sorted.
func (s *stack) of(kind string) []string {
	var ids []string
	for id, r := range s.Resources {
		if r.Type == kind {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// get walks properties by keys (string) and indexes (int).
func (r resource) get(t testing.TB, path ...any) any {
	t.Helper()
	var at any = r.Properties
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, ok := at.(map[string]any)
			require.True(t, ok, "%v of %v", step, at)
			at = object[step]
		case int:
			list, ok := at.([]any)
			require.True(t, ok && step < len(list), "[%d] of %v", step, at)
			at = list[step]
		}
	}
	return at
}

func (r resource) number(t testing.TB, path ...any) float64 {
	t.Helper()
	n, ok := r.get(t, path...).(float64)
	require.True(t, ok, "%v is %v", path, r.get(t, path...))
	return n
}

var packages sync.Map // arguments -> func() (*stack, error)

// packaged packages a stage, with parameters in the form name=value, once for all tests.
func packaged(t testing.TB, stage string, parameters ...string) *stack {
	t.Helper()
	needOsls(t)
	var dev *stack
	if stage != "dev" {
		dev = packaged(t, "dev")
	}
	once, _ := packages.LoadOrStore(fmt.Sprint(stage, parameters), sync.OnceValues(func() (*stack, error) {
		dir, err := copyTree("..")
		if err != nil {
			return nil, err
		}
		if dev != nil {
			if err := takeZips(dev, dir); err != nil {
				return nil, err
			}
		}
		return packageIn(dir, stage, parameters...)
	}))
	s, err := once.(func() (*stack, error))()
	require.NoError(t, err)
	return s
}

// takeZips lets the copy in dir take the functions of from. They are the same in every stage, and to build and pack them takes longer than
// all the rest. A program in the place of go does it.
func takeZips(from *stack, dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		return err
	}
	script := "#!/bin/sh\nmkdir -p .serverless && cp '" + filepath.Join(from.dir, ".serverless") + "'/*.zip .serverless\n"
	return os.WriteFile(filepath.Join(dir, "bin", "go"), []byte(script), 0o700)
}

// needOsls skips where Node or osls is missing; CI has both.
func needOsls(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(filepath.Join("..", "node_modules", "osls"))
	}
	absent(t, err, "npm ci --ignore-scripts")
}

func absent(t testing.TB, err error, install string) {
	t.Helper()
	if err == nil {
		return
	}
	message := fmt.Sprintf("%v: to install it: %s", err, install)
	labtest.Missing(t, message)
}

// copies is the folder of all copies of the tree. TestMain removes it.
var copies string

func TestMain(m *testing.M) {
	var err error
	if copies, err = os.MkdirTemp("", "infra-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(copies)
	os.Exit(code)
}

// copyTree copies what packaging reads from root, as a fresh clone would have it. In the checkout
// itself osls would empty the developer's .serverless/.
func copyTree(root string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(copies, "")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"serverless.yml", "package.json", "go.mod", "go.sum", "contracts", "dbgen", "handlers", "inbox", "infra", "internal", "migrate", "outbox", "sql"} {
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		switch {
		case err != nil:
			return "", err
		case info.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		default:
			var data []byte
			if data, err = fs.ReadFile(os.DirFS(root), name); err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
		}
		if err != nil {
			return "", err
		}
	}
	return dir, os.Symlink(filepath.Join(root, "node_modules"), filepath.Join(dir, "node_modules"))
}

// osls runs in dir without anything of AWS in its environment. The functions are built for this machine, by the go in bin/ if there is one.
func osls(dir string, args ...string) (string, error) {
	command := exec.Command("node", append([]string{"node_modules/osls/bin/serverless.js"}, args...)...)
	command.Dir = dir
	command.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "AWS_") })
	command.Env = append(command.Env, "LAMBDA_GOARCH="+runtime.GOARCH, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("osls %s: %w\n%s", strings.Join(args, " "), err, &output)
	}
	return output.String(), nil
}

func packageIn(dir, stage string, parameters ...string) (*stack, error) {
	arguments := []string{"package", "--stage", stage}
	for _, parameter := range parameters {
		arguments = append(arguments, "--param", parameter)
	}
	if _, err := osls(dir, arguments...); err != nil {
		return nil, err
	}
	s := &stack{dir: dir}
	var state struct {
		Service struct{ Custom map[string]any }
	}
	for file, into := range map[string][]any{
		"cloudformation-template-update-stack.json": {s, &s.Rest}, "serverless-state.json": {&state},
	} {
		data, err := os.ReadFile(filepath.Join(dir, ".serverless", file))
		if err != nil {
			return nil, err
		}
		for _, value := range into {
			if err := json.Unmarshal(data, value); err != nil {
				return nil, fmt.Errorf("reading %s: %w", file, err)
			}
		}
	}
	s.custom = state.Service.Custom
	return s, nil
}

// uses returns every resource that id waits for, directly or through others.
func (s *stack) uses(id string) map[string]bool {
	found := map[string]bool{}
	var visit func(id string)
	visit = func(id string) {
		for _, next := range s.references(id) {
			if !found[next] {
				found[next] = true
				visit(next)
			}
		}
	}
	visit(id)
	return found
}

// references returns what a resource names in DependsOn, Ref, GetAtt or Sub.
func (s *stack) references(id string) []string {
	names := slices.Clone(s.Resources[id].DependsOn)
	var walk func(value any)
	walk = func(value any) {
		switch value := value.(type) {
		case []any:
			for _, element := range value {
				walk(element)
			}
		case map[string]any:
			for key, element := range value {
				switch text, isText := element.(string); {
				case key == "Ref":
					names = append(names, text)
				case key == "Fn::Sub" && isText:
					for _, part := range strings.Split(text, "${")[1:] {
						name, _, _ := strings.Cut(part, "}")
						name, _, _ = strings.Cut(name, ".")
						names = append(names, name)
					}
				case key == "Fn::GetAtt":
					names = append(names, element.([]any)[0].(string))
				default:
					walk(element)
				}
			}
		}
	}
	walk(s.Resources[id].Properties)
	return slices.DeleteFunc(names, func(name string) bool { _, ours := s.Resources[name]; return !ours })
}
