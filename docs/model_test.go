package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	modelStep   = regexp.MustCompile("^`([^`]+)` in \\[(\\w+\\.pml)\\]\\(\\.\\./model/(\\w+\\.pml)\\)$")
	goFunction  = regexp.MustCompile("\\[`(?:(\\w+)\\.)?(\\w+)`\\]\\(\\.\\./([^)]+\\.go)\\)")
	codeInCell  = regexp.MustCompile("`([^`]+)`")
	brokenRules = regexp.MustCompile(`(?s)broken="(.*?)"`)
)

// docs/model.md says which function and which failpoint is which step of the model. Each step is printed by the model, each function
// and failpoint exists, and no failpoint is left out.
func TestModelStepsAreFunctionsAndFailpoints(t *testing.T) {
	t.Parallel()
	failpoints := constants(t, "internal/failpoint/failpoint.go", "Point")
	var named []string
	steps := 0
	for _, row := range rows(read(t, "docs/model.md"), "step of the model") {
		step := modelStep.FindStringSubmatch(row[0])
		require.NotNil(t, step, "%q is not `step` in [file](../model/file)", row[0])
		require.Equal(t, step[2], step[3])
		require.Contains(t, read(t, "model/"+step[2]), step[1], "the model has no such step")
		functions := goFunction.FindAllStringSubmatch(row[1], -1)
		require.NotEmpty(t, functions, "step %s without a function", step[1])
		for _, f := range functions {
			require.True(t, declares(t, f[3], f[1], f[2]), "%s has no %s", f[3], f[0])
		}
		for _, point := range codeInCell.FindAllStringSubmatch(row[2], -1) {
			require.Contains(t, failpoints, point[1], "step %s", step[1])
			named = append(named, point[1])
		}
		steps++
	}
	require.Greater(t, steps, 20)
	for point := range failpoints {
		require.Contains(t, named, point, "a failpoint that is no step of the model")
	}
}

// Every sabotage is broken in the model, or docs/model.md says why a model cannot show it.
func TestModelBreaksEverySabotage(t *testing.T) {
	t.Parallel()
	broken := brokenRules.FindStringSubmatch(read(t, "scripts/model.sh"))
	require.NotNil(t, broken)
	shown := map[string]bool{}
	for line := range strings.Lines(strings.TrimSpace(broken[1])) {
		words := strings.Fields(line)
		macro := strings.ToUpper(strings.ReplaceAll(words[0], "-", "_"))
		// Without the #ifdef the model would be the unbroken one.
		require.Regexp(t, `(?m)^#if(n?def .*|.*defined.*)\b`+macro+`\b`, model(t), words[0])
		shown[words[0]] = true
	}
	var notShown []string
	page := rows(read(t, "docs/model.md"), "not in the model")
	for _, row := range page {
		notShown = append(notShown, strings.Trim(row[0], "`"))
	}
	for _, value := range constants(t, "internal/sabotage/sabotage.go", "Rule") {
		require.NotEqual(t, shown[value], slices.Contains(notShown, value), "sabotage %s is shown by the model, or else has a reason", value)
	}
}

func model(t *testing.T) (all string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "model", "*.pml"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		all += string(content)
	}
	return all
}

// rows returns the cells of the table whose first heading is given, without the heading.
func rows(markdown, heading string) (all [][]string) {
	inside := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "| "+heading+" |"):
			inside = true
		case !strings.HasPrefix(line, "|"):
			inside = false
		case inside && !strings.HasPrefix(line, "|---"):
			var cells []string
			for cell := range strings.SplitSeq(strings.Trim(line, "|"), " | ") {
				cells = append(cells, strings.TrimSpace(cell))
			}
			all = append(all, cells)
		}
	}
	return all
}

// constants returns the constants of a type in a file, by name.
func constants(t *testing.T, file, kind string) map[string]string {
	t.Helper()
	all := map[string]string{}
	ast.Inspect(parsed(t, file), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == kind {
			value, isText := spec.Values[0].(*ast.BasicLit)
			require.True(t, isText)
			all[spec.Names[0].Name] = strings.Trim(value.Value, `"`)
		}
		return true
	})
	require.NotEmpty(t, all, "%s has no constants of type %s", file, kind)
	return all
}

// declares reports whether a file has a function, or a method where receiver is not "".
func declares(t *testing.T, file, receiver, name string) bool {
	t.Helper()
	return slices.ContainsFunc(parsed(t, file).Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != name {
			return false
		}
		if f.Recv == nil {
			return receiver == ""
		}
		of := f.Recv.List[0].Type
		if pointer, ok := of.(*ast.StarExpr); ok {
			of = pointer.X
		}
		is, ok := of.(*ast.Ident)
		return ok && is.Name == receiver
	})
}

func parsed(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	return f
}
