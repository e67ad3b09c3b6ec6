package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const source = `package things

import "io"

const Limit = 5

var Default Size = 1

type (
	Size   int
	Alias  = map[string]Size
	hidden struct{ Field int }
	Thing  struct {
		io.Reader
		hidden
		Name string ` + "`json:\"name\"`" + `
		size Size
	}
	Store interface {
		Get(key string) (Thing, error)
		Put(Thing) error
	}
	Pair[T any] struct{ Left, Right T }
)

func New(name string, options ...func(*Thing)) (thing *Thing, err error) { return nil, nil }

func Map[T, U any](from []T, with func(T) U) []U { return nil }

func (t *Thing) Grow(by Size) {}
func (t Thing) grow()         {}
func (p Pair[T]) Swap()       {}
func (hidden) Exported()      {}
`

var lines = []string{
	"const Limit untyped int = 5",
	"func Map[T, U any]([]T, func(T) U) []U",
	"func New(string, ...func(*Thing)) (*Thing, error)",
	"method (*Thing) Grow(Size)",
	"method (Pair[T]) Swap()",
	"type Alias = map[string]Size",
	"type Pair[T any] struct",
	"type Pair[T any] struct, Left T",
	"type Pair[T any] struct, Right T",
	"type Size int",
	"type Store interface { Get(string) (Thing, error); Put(Thing) error }",
	"type Thing struct",
	"type Thing struct, Name string",
	"type Thing struct, embedded io.Reader",
	"var Default Size",
}

// TestAPI changes a package of another module as its authors might.
func TestAPI(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("things/testdata", 0o750))
	require.NoError(t, os.WriteFile("go.mod", []byte("module example.com/a\n\ngo 1.26\n"), 0o600))
	edit := func(from, to string) error {
		require.Contains(t, source, from)
		require.NoError(t, os.WriteFile("things/things.go", []byte(strings.Replace(source, from, to, 1)), 0o600))
		return run(false, []string{"things"})
	}
	kept := func() []string {
		text, err := os.ReadFile("things/testdata/api.txt")
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	require.ErrorContains(t, edit("", ""), "things: new: run make generate, which adds [\"const Limit untyped int = 5\"")
	require.NoFileExists(t, "things/testdata/api.txt")
	require.NoError(t, run(true, []string{"things"}))
	require.Equal(t, lines, kept())
	require.NoError(t, run(false, []string{"things"}))

	for name, change := range map[string]struct{ from, to, gone string }{
		"RemovedFunction":  {"func New(", "func make_(", "func New(string, ...func(*Thing)) (*Thing, error)"},
		"AnotherParameter": {"by Size", "by int", "method (*Thing) Grow(Size)"},
		"PointerReceiver":  {"(p Pair[T])", "(p *Pair[T])", "method (Pair[T]) Swap()"},
		"AnotherResult":    {"(thing *Thing, err error) { return nil, nil }", "error { return nil }", "func New(string, ...func(*Thing)) (*Thing, error)"},
		"RemovedField":     {"Name string", "name string", "type Thing struct, Name string"},
		"AddedMethod":      {"Put(Thing) error", "Put(Thing) error; Close()", "type Store interface { Get(string) (Thing, error); Put(Thing) error }"},
		"AnotherValue":     {"Limit = 5", "Limit = 6", "const Limit untyped int = 5"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, edit(change.from, change.to), `things: incompatible: "`+change.gone+`" is gone or has changed`)
			require.ErrorContains(t, run(true, []string{"things"}), `things: incompatible: "`+change.gone+`"`, "not even make generate takes it away")
			require.Equal(t, lines, kept())
		})
	}
	require.NoError(t, edit("by Size", "with Size"), "the name of a parameter")
	require.NoError(t, edit("size Size", "length Size"), "what nobody sees")

	require.EqualError(t, edit("size Size", "Size Size"), `things: new: run make generate, which adds ["type Thing struct, Size Size"]`)
	require.NoError(t, run(true, []string{"things"}))
	require.Len(t, kept(), len(lines)+1)
	require.ErrorContains(t, edit("", ""), `"type Thing struct, Size Size" is gone`)
	require.NoError(t, os.WriteFile("things/testdata/api.txt", []byte(strings.Join(lines, "\n")), 0o600))
	require.NoError(t, run(false, []string{"things"}), "whoever means it deletes the line")
}
