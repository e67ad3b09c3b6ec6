#!/bin/sh
# Runs a command that takes long and says little. It shows what the command printed last and for how
# many seconds it has run. On a terminal this is one line that moves, elsewhere a line every ten
# seconds. If the command failed, its output follows.
set -u
[ $# -ge 2 ] || {
    echo 'usage: scripts/moving.sh <what> <command> [argument...]' >&2
    exit 2
}
what=$1
shift
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The ticker ends by itself, within a second. A killed one would leave its sleep, and some shells would report it.
tick() {
    seconds=0
    while sleep 1 && [ -e "$log" ] && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 1))
        last=$(tail -n 1 "$log" 2>/dev/null | cut -c 1-60)
        if [ -t 2 ]; then
            printf '\r\033[K%s: %s s  %s' "$what" "$seconds" "$last" >&2
        elif [ $((seconds % 10)) = 0 ]; then
            printf '%s: %s s  %s\n' "$what" "$seconds" "$last" >&2
        fi
    done
}

if [ -t 2 ]; then printf '%s' "$what" >&2; else echo "$what" >&2; fi
tick </dev/null >/dev/null &
code=0
"$@" >"$log" 2>&1 || code=$?
[ ! -t 2 ] || printf '\r\033[K%s\n' "$what" >&2
# `go build -v` prints a package in a line without spaces, which is no error.
[ $code = 0 ] || grep ' ' "$log" >&2
exit $code
