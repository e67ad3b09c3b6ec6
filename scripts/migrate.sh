#!/usr/bin/env bash
# Calls a stage's migrate function by hand. It applies the pending migrations, shows what is applied
# or which replication slots there are, partitions outbox, or changes a login user's password.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

usage='usage: scripts/migrate.sh <stage> <region> up | status | slots | partition | rotate api | rotate dms | rotate retention | rotate carstats | rotate canary'
case "${*:3}" in
up | status | slots | partition) payload="{\"command\":\"$3\"}" ;;
'rotate api' | 'rotate dms' | 'rotate retention' | 'rotate carstats' | 'rotate canary') payload="{\"command\":\"rotate\",\"user\":\"$4\"}" ;;
*) die "$usage" ;;
esac
stage_and_region "$1" "$2"
read_outputs "$main_stack" MigrateFunctionName
call_migrate "$payload"
if [[ ${*:3} == 'rotate dms' ]]; then
    say "walrelay reads the new password by itself. A DMS task still uses the old one: stop it and let it resume, scripts/deploy-dms.sh $stage $region --stop, then without --stop"
fi
