#!/bin/sh
# Runs `go test` with the given arguments beside two busy loops per core. A test that is red here
# and green alone depends on how fast the machine is.
set -eu

loops=
for _ in $(seq $((2 * $(getconf _NPROCESSORS_ONLN)))); do
	# The loop checks now and then that its parent still runs, so that it does not outlive a parent
	# that was killed.
	(while kill -0 $$ 2>/dev/null; do
		i=0
		while [ $i -lt 100000 ]; do i=$((i + 1)); done
	done) &
	loops="$loops $!"
done
# shellcheck disable=SC2086
trap 'kill $loops' EXIT
trap 'exit 130' INT TERM

go test "$@"
