#!/bin/sh
# Runs every fuzz target of the module for the given time each, as in scripts/fuzz.sh 10s
set -eu
for_each=${1:?usage: scripts/fuzz.sh DURATION, such as 10s}
log=$(mktemp)
packages=$(mktemp)
trap 'rm -f "$log" "$packages"' EXIT

# fuzz runs a target. Until Go 1.27 a run may fail at its end with nothing but "context deadline
# exceeded" and no failing input (https://go.dev/issue/75804). Such a run is repeated. Every other
# failure counts, and so does the third of this kind.
fuzz() {
    for try in 1 2 3; do
        if go test -tags fuzz -run '^$' -fuzz "^$2\$" -fuzztime "$for_each" -fuzzminimizetime 100x "$1" >"$log" 2>&1; then
            cat "$log"
            return 0
        fi
        cat "$log"
        if ! grep -q '^    context deadline exceeded$' "$log" || grep -q 'Failing input' "$log"; then
            return 1
        fi
        echo "fuzz: try $try ended at its own deadline (https://go.dev/issue/75804)"
    done
    return 1
}

# The targets are read from the files. `go test -list` would link the tests of every package.
go list -f '{{.ImportPath}} {{.Dir}}' ./... >"$packages"
while read -r package dir; do
    targets=$(find "$dir" -maxdepth 1 -name '*_test.go' -exec sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f \*testing\.F) .*/\1/p' {} +)
    for target in $targets; do
        echo "fuzz: $package $target for $for_each"
        fuzz "$package" "$target" </dev/null
    done
done <"$packages"
grep -q . "$log" || { echo "fuzz: no target was found" >&2; exit 1; }
