#!/usr/bin/env bash
# Follows the log group that gets every event of the bus. Prints one line of JSON per event, from
# ten minutes ago until Ctrl-C.
# (Not `aws logs tail`, because version 1 of the CLI lacks it.)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# == 2)) || die "usage: scripts/events.sh <stage> <region>"
stage_and_region "$@"
read_outputs "$main_stack" EventBusLogGroupName
group=$(output EventBusLogGroupName)
say "events of $group"
seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
seconds=600
while true; do
    answer=$(ask logs filter-log-events --log-group-name "$group" --start-time "$(($(date +%s) - seconds))000" --query 'events[].[eventId,message]')
    # The time ranges overlap, because an event may appear later than its time says. An event of the
    # range before is not printed again.
    awk -F '\t' 'FILENAME == ARGV[1] { seen[$1]; next } NF > 1 && !($1 in seen) { print $2 }' "$seen" - <<<"$answer"
    cut -f 1 <<<"$answer" >"$seen"
    seconds=120
    sleep 2
done
