#!/bin/sh
# What CI has no time for. Needs TEST_DATABASE_URL; `make soak` sets it. Every line names what it ran and how long it took.
set -eu
run() {
    start=$(date +%s)
    "$@"
    echo "soak: $(($(date +%s) - start)) s: $*"
}
run go test -count=1 -timeout 30m -run 'TestEveryEventInOrder|TestOrder|TestWhatIs|TestHandlesEach|TestShards' -rapid.checks=5000 \
    ./outbox ./walrelay ./handlers/cdcconsumer ./lab/poller
run go test -race -count=5 -timeout 30m ./walrelay ./lab/stack ./lab
run sh scripts/fuzz.sh 60s
CARS=20000
export CARS
run bin/lab demo
echo "soak: done"
