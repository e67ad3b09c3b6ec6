#!/bin/sh
# Runs every fuzz target of the module for a time each: scripts/fuzz.sh 10s
set -eu
for_each=${1:?usage: scripts/fuzz.sh DURATION, such as 10s}
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
    for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
        echo "fuzz: $package $target for $for_each"
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$for_each" "$package"
    done
done
