package main

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
)

// list returns a line for everything exported that code outside of the package can depend on, in order. Names of parameters are left
// out, because they can change. The lines do not contain the module's path, so that a copy under another path has the same ones.
func list(pkg *types.Package, module string) (lines []string) {
	qualifier := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return strings.TrimPrefix(p.Path(), module+"/")
	}
	for _, name := range pkg.Scope().Names() {
		if object := pkg.Scope().Lookup(name); object.Exported() {
			lines = append(lines, describe(object, qualifier)...)
		}
	}
	slices.Sort(lines)
	return lines
}

func describe(object types.Object, qualifier types.Qualifier) (lines []string) {
	text := func(t types.Type) string { return types.TypeString(unnamed(t), qualifier) }
	switch object := object.(type) {
	case *types.Const:
		return []string{fmt.Sprintf("const %s %s = %s", object.Name(), text(object.Type()), object.Val().ExactString())}
	case *types.Var:
		return []string{fmt.Sprintf("var %s %s", object.Name(), text(object.Type()))}
	case *types.Func:
		return []string{"func " + object.Name() + strings.TrimPrefix(text(object.Type()), "func")}
	}
	name := object.(*types.TypeName)
	if name.IsAlias() {
		return []string{fmt.Sprintf("type %s = %s", name.Name(), text(types.Unalias(name.Type())))}
	}
	named := name.Type().(*types.Named)
	head := "type " + strings.TrimPrefix(types.TypeString(named, qualifier), ".")
	switch underlying := named.Underlying().(type) {
	case *types.Struct:
		lines = append(lines, head+" struct")
		for field := range underlying.Fields() {
			if field.Embedded() && field.Exported() {
				lines = append(lines, fmt.Sprintf("%s struct, embedded %s", head, text(field.Type())))
			} else if field.Exported() {
				lines = append(lines, fmt.Sprintf("%s struct, %s %s", head, field.Name(), text(field.Type())))
			}
		}
	case *types.Interface:
		// One line, because an added method breaks whoever implements the interface.
		var methods []string
		for method := range underlying.Methods() {
			methods = append(methods, method.Name()+strings.TrimPrefix(text(method.Type()), "func"))
		}
		lines = append(lines, fmt.Sprintf("%s interface { %s }", head, strings.Join(methods, "; ")))
	default:
		lines = append(lines, head+" "+text(underlying))
	}
	for method := range named.Methods() {
		if method.Exported() {
			signature := method.Type().(*types.Signature)
			receiver := types.TypeString(signature.Recv().Type(), qualifier)
			lines = append(lines, fmt.Sprintf("method (%s) %s%s", receiver, method.Name(), strings.TrimPrefix(text(signature), "func")))
		}
	}
	return lines
}

// unnamed returns a signature without the names of its parameters, and any other type as it is.
func unnamed(t types.Type) types.Type {
	signature, ok := t.(*types.Signature)
	if !ok {
		return t
	}
	tuple := func(from *types.Tuple) *types.Tuple {
		var to []*types.Var
		for v := range from.Variables() {
			to = append(to, types.NewParam(v.Pos(), v.Pkg(), "", v.Type()))
		}
		return types.NewTuple(to...)
	}
	var parameters []*types.TypeParam
	for p := range signature.TypeParams().TypeParams() {
		parameters = append(parameters, types.NewTypeParam(p.Obj(), p.Constraint()))
	}
	return types.NewSignatureType(nil, nil, parameters, tuple(signature.Params()), tuple(signature.Results()), signature.Variadic())
}
