#!/bin/sh
# Checks the model of the protocol in model/, as in scripts/model.sh [STORY]. STORY is a sabotage,
# or all, whose counterexample is printed as a story. Needs spin and a C compiler. docs/model.md
# says what is checked.
set -eu
cd "$(dirname "$0")/../model"

# Name, model, and the model's parameters. They are as large as a minute allows.
checked="
one-commit              api
relay                   relay    -DEVENTS=5
relay-and-schema        relay    -DEVENTS=3 -DSCHEMA -DPURGE
relay-and-commit-log    relay    -DEVENTS=5 -DCOMMIT_LOG
two-relays              relay    -DEVENTS=3 -DRELAYS=2
two-relays-and-schema   relay    -DEVENTS=1 -DRELAYS=2 -DSCHEMA
consumer                consumer -DEVENTS=3 -DRECORDS=3
consumer-and-duplicates consumer -DEVENTS=2 -DRECORDS=3
two-lanes               consumer -DEVENTS=2 -DRECORDS=2 -DLANES=2
subscriber              consumer -DEVENTS=2 -DRECORDS=2 -DSUBSCRIBER"

# The names are those of internal/sabotage. The last four break what no sabotage breaks.
broken="
keys-off                  api
event-after-commit        api
confirm-before-put        relay
start-at-current-lsn      relay
look-only-at-start        relay    -DSCHEMA
no-drain-on-error         relay    -DSCHEMA
load-without-snapshot     relay
retry-only-the-failed     relay
ignore-failed-entry-count consumer
aggregate-in-two-lanes    consumer
wrong-identifier          consumer
skip-poison-silently      consumer
park-unanswered           consumer
inbox-off                 consumer -DSUBSCRIBER
load-unsettled            relay    -DCOMMIT_LOG
purge-without-slot        relay    -DPURGE
lambda-gives-up           consumer
delete-before-put         consumer"

case ${1:-} in
check | break)
    kind=$1 name=$2 model=$3
    shift 3
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp ./*.pml "$work"
    cd "$work"
    if [ "$kind" = check ]; then
        options='-O2'
    else
        # Breadth first, so that the story is the shortest counterexample.
        options='-O1 -DBFS'
        set -- "-D$(printf %s "$name" | tr 'a-z-' 'A-Z_')" "$@"
    fi
    # spin exits with 0 after errors, but then writes no pan.c.
    spin -a "$@" "$model.pml" >spin.log 2>&1 || { cat spin.log && exit 1; }
    # shellcheck disable=SC2086 # two options
    ${CC:-cc} $options -w -DSAFETY -DMEMLIM=6000 -o pan pan.c
    ./pan -m100000 -n >pan.log 2>&1 || true
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log)
    time=$(sed -n 's/^pan: elapsed time \(.*\) seconds/\1/p' pan.log)
    if [ "$kind" = check ]; then
        # A search that gave up for lack of memory or depth reports no error either.
        if ! grep -q 'errors: 0' pan.log || grep -q 'not completed\|too small' pan.log; then
            cat pan.log
            spin -t -T "$@" "$model.pml" || true
            echo "model: $name FAILED"
            exit 1
        fi
        awk -v n="$name" -v s="$states" -v t="$time" -v d="$*" 'BEGIN { printf "model: %s: %d states, 0 errors, %s s (%s)\n", n, s, t, d }'
        exit
    fi
    found=$(sed -n 's/^pan:[0-9]*: assertion violated.*/yes/p' pan.log)
    if [ -z "$found" ] || [ ! -e "$model.pml.trail" ]; then
        cat pan.log
        echo "model: $name FAILED: no counterexample"
        exit 1
    fi
    spin -t -T "$@" "$model.pml" | sed '/^spin: trail ends/,$d; /^spin: text of/d; s/^spin: .*Error: assertion violated/✗  and the assertion fails/' >story
    steps=$(grep -c '^[①②③④⑤⑥]' story)
    if [ "${STORY:-}" = "$name" ] || [ "${STORY:-}" = all ]; then
        sed 's/^/    /' story >out
    fi
    echo "model: $name: counterexample of $steps steps" >>out
    cat out # at once, because others print beside us
    exit
    ;;
esac

STORY=${1:-}
export STORY
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$(date +%s)
all=$(printf '%s\n' "$checked" | sed -n 's/^[a-z]/check &/p' && printf '%s\n' "$broken" | sed -n 's/^[a-z]/break &/p')
# One process for each core. A process that fails prints no line that counts.
printf '%s\n' "$all" | xargs -P "$(getconf _NPROCESSORS_ONLN)" -L 1 ../scripts/model.sh 2>&1 | tee "$log"
awk -v expected="$(printf '%s\n' "$all" | wc -l)" -v took="$(($(date +%s) - start))" '
    /^model: .*: [0-9]+ states, 0 errors/ { ok++; split($0, part, ": "); states += part[3] }
    /^model: .*: counterexample of/ { ok++; found++ }
    END {
        printf "model: %s %d states, %d counterexamples, %d s\n", (ok == expected ? "pass" : "FAIL"), states, found, took
        exit ok != expected
    }' "$log"
