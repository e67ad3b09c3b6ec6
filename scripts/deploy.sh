#!/usr/bin/env bash
# Deploys the main stack with osls: network, database, migrations, functions, stream, bus. What carries events from the database to
# the stream comes afterwards: scripts/deploy-dms.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# == 2)) || die "usage: scripts/deploy.sh <stage> <region>"
[[ -x node_modules/.bin/osls ]] || die "osls is not installed: run npm ci"
stage_and_region "$@"
if [[ -n ${AWS_ENDPOINT_URL:-} ]]; then
    say "AWS_ENDPOINT_URL is set: this deploys to $AWS_ENDPOINT_URL, not to AWS"
fi
node_modules/.bin/osls deploy --stage "$stage" --region "$region"
read_outputs "$main_stack" ApiEndpoint
say "deployed: $(output ApiEndpoint)
Events wait in the database until something relays them: make dms STAGE=$stage REGION=$region"
