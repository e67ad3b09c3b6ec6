#!/usr/bin/env bash
# Calls a stage's migrate function by hand: applies what is pending, shows what is applied, or changes a login user's password.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

usage='usage: scripts/migrate.sh <stage> <region> up | status | rotate api | rotate dms | rotate retention | rotate carstats'
case "${*:3}" in
up | status) payload="{\"command\":\"$3\"}" ;;
'rotate api' | 'rotate dms' | 'rotate retention' | 'rotate carstats') payload="{\"command\":\"rotate\",\"user\":\"$4\"}" ;;
*) die "$usage" ;;
esac
stage_and_region "$1" "$2"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%s' "$payload" >"$folder/event"
read_outputs "$main_stack" MigrateFunctionName
# fileb: version 2 of the CLI would take a plain payload for base64. No read timeout: a migration may take 15 minutes, and a second
# call would only wait for the first one's lock.
failed=$(ask lambda invoke --function-name "$(output MigrateFunctionName)" --payload "fileb://$folder/event" --cli-read-timeout 0 \
    --query FunctionError "$folder/answer")
[[ $failed == None ]] || die "$(cat "$folder/answer")"
cat "$folder/answer"
echo
if [[ ${*:3} == 'rotate dms' ]]; then
    say "the task still uses the old password: stop it and let it resume, scripts/deploy-dms.sh $stage $region --stop, then without --stop"
fi
