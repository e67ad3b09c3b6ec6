#!/bin/sh
# What CI has no time for. Needs TEST_DATABASE_URL; `make soak` sets it. Every line names what it ran and how long it took.
set -eu
run() {
    start=$(date +%s)
    "$@"
    echo "soak: $(($(date +%s) - start)) s: $*"
}
# The packages come first, because go test hands everything after a flag that it does not know to
# the tests.
run go test -count=1 -timeout 30m -run 'TestEveryEventInOrder|TestOrder|TestWhatIs|TestAfter' \
    ./outbox ./walrelay ./handlers/cdcconsumer ./lab/poller -rapid.checks=2000
run env CGO_ENABLED=1 go test -race -count=5 -timeout 30m ./walrelay ./lab/local ./lab
run sh scripts/fuzz.sh 60s
SOAK_SECONDS=600
export SOAK_SECONDS
run go test -count=1 -timeout 30m -v -run '^TestSoakPartitions$' ./handlers/retention
CARS=20000
export CARS
run bin/lab demo
echo "soak: done"
