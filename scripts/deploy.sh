#!/usr/bin/env bash
# Deploys the main stack with osls, which is network, database, migrations, functions, stream and
# bus. The relay that carries events from the database to the stream comes afterwards, with
# scripts/deploy-walrelay.sh or scripts/deploy-dms.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh
# shellcheck source=scripts/preflight.sh
. scripts/preflight.sh

(($# == 2)) || die "usage: scripts/deploy.sh <stage> <region>"
[[ -x node_modules/.bin/osls ]] || die "osls is not installed: run npm ci"
stage_and_region "$@"
if [[ -n ${AWS_ENDPOINT_URL:-} ]]; then
    say "AWS_ENDPOINT_URL is set: this deploys to $AWS_ENDPOINT_URL, not to AWS"
fi
preflight
# refusals prints what CloudFormation refused before it changed anything, such as a name that is
# taken. The stack's own events do not have it. Each line begins with the event's id.
refusals() {
    cli cloudformation describe-events --stack-name "$main_stack" --filters FailedEvents=true --query \
        "OperationEvents[?EventType=='VALIDATION_ERROR'].[EventId,LogicalResourceId,ValidationStatusReason]" 2>/dev/null
}
# These are noted first, because otherwise an old refusal would be taken for the reason of today's
# failure.
before=$(refusals) || before=''
parameters=()
if lacks schemas; then parameters+=(--param 'contractRegistry=false'); fi
node_modules/.bin/osls deploy --stage "$stage" --region "$region" ${parameters[@]+"${parameters[@]}"} || {
    # osls has printed what CloudFormation said of the stack.
    why=$(refusals | grep -vxFf <(printf '%s\n' "$before") | cut -f 2-) || why=''
    die "stack $main_stack was not deployed, see above${why:+. CloudFormation refused beforehand:
$why}"
}
read_outputs "$main_stack" ApiEndpoint DatabaseInstanceIdentifier DatabaseProtected
# Only now, because a first deployment that fails has to be able to delete the database that it
# made. A protected database stays and bills.
if [[ $(output DatabaseProtected) == true ]]; then
    ask rds modify-db-instance --db-instance-identifier "$(output DatabaseInstanceIdentifier)" --deletion-protection --apply-immediately >/dev/null
fi
say "deployed: $(output ApiEndpoint)
Events wait in the database until something relays them: make walrelay STAGE=$stage REGION=$region (or make dms STAGE=$stage REGION=$region)"
