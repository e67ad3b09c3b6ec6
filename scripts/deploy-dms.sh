#!/usr/bin/env bash
# Deploys dms-setup.yaml beside the main stack, and makes the replication task run. Safe to run at
# any time, because it finishes what an earlier run began, and leaves an unchanged stack with a
# running task alone.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh
# shellcheck source=scripts/stack.sh
. scripts/stack.sh
# shellcheck source=scripts/preflight.sh
. scripts/preflight.sh

usage='usage: scripts/deploy-dms.sh <stage> <region> [--stop] [Parameter=Value ...]
  --stop            stop the task and change nothing else; commits wait in the WAL
  Parameter=Value   ReplicationInstanceClass=dms.t3.medium, MultiAZ=true, EngineVersion=3.6.2: kept in later runs'
stop=false names=() parameters=()
for argument in "$@"; do
    case $argument in
    --stop) stop=true ;;
    ReplicationInstanceClass=* | MultiAZ=* | EngineVersion=*) parameters+=("$argument") ;;
    -* | *=*) die "no such option: $argument"$'\n'"$usage" ;;
    *) names+=("$argument") ;;
    esac
done
((${#names[@]} == 2)) || die "give a stage and a region"$'\n'"$usage"
stage_and_region "${names[@]}"

# use_task takes the ARNs from the DMS stack's outputs.
use_task() {
    read_outputs "$dms_stack" ReplicationTaskArn ReplicationInstanceArn SourceEndpointArn TargetEndpointArn
    task=$(output ReplicationTaskArn)
    # shellcheck source=scripts/dms-task.sh
    . scripts/dms-task.sh
}

# --- account-wide roles. Without them the console works and CloudFormation does not --------------
made_vpc_role=false

# A condition keeps other accounts' DMS from using a role.
# https://docs.aws.amazon.com/dms/latest/userguide/cross-service-confused-deputy-prevention.html shows it for dms-vpc-role. It shows
# none for dms-cloudwatch-logs-role, and one that DMS does not meet would leave the task without a log. The ARN is that of no single
# instance, because the role serves all of the account.
ensure_role() { # NAME POLICY CONDITION
    local answer
    if answer=$(cli iam get-role --role-name "$1" --query Role.RoleName 2>&1); then
        # An interrupted run may have left the role half made. Credentials that may not look at it
        # have to trust it.
        answer=$(cli iam list-attached-role-policies --role-name "$1" --query "AttachedPolicies[?PolicyName=='$2'].PolicyName" 2>/dev/null) || return 0
        [[ -z $answer ]] || return 0
    else
        [[ $answer == *NoSuchEntity* ]] || die "$(explain 'iam get-role' "$answer")"
        say "making the role $1, which DMS needs once per account; it stays when the stacks go"
        answer=$(cli iam create-role --role-name "$1" --description 'Used by every AWS DMS instance of this account' \
            --assume-role-policy-document "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"dms.amazonaws.com\"},\"Action\":\"sts:AssumeRole\"$3}]}" 2>&1) ||
            role_missing "$1" "$2" "$answer"
    fi
    answer=$(cli iam attach-role-policy --role-name "$1" --policy-arn "arn:aws:iam::aws:policy/service-role/$2" 2>&1) || role_missing "$1" "$2" "$answer"
    if [[ $1 == dms-vpc-role ]]; then made_vpc_role=true; fi
}

role_missing() { # NAME POLICY ERRORS
    die "role $1 is missing, or has no policy $2, and these credentials cannot change that: have an administrator make it, trusted by dms.amazonaws.com, with arn:aws:iam::aws:policy/service-role/$2 ($(explain iam "$3"))"
}

# A new role takes a while to be known everywhere, and the stack would fail meanwhile. DMS checks
# the role when a subnet group is made, and a subnet group costs nothing.
wait_for_vpc_role() {
    local look error
    for ((look = 0; look < 24; look++)); do
        if error=$(cli dms create-replication-subnet-group --replication-subnet-group-identifier "$dms_stack-probe" \
            --replication-subnet-group-description 'is dms-vpc-role usable?' --subnet-ids "${subnets[@]}" 2>&1 >/dev/null); then
            ask dms delete-replication-subnet-group --replication-subnet-group-identifier "$dms_stack-probe" >/dev/null
            return
        fi
        [[ $error == *'not configured properly'* ]] || die "$(explain 'dms create-replication-subnet-group' "$error")"
        sleep 5
    done
    die "DMS does not accept the new role dms-vpc-role after 2 minutes: run this again"
}

# given NAME prints the given parameter, or the template's default.
given() {
    local parameter
    for parameter in ${parameters[@]+"${parameters[@]}"}; do
        [[ $parameter != "$1="* ]] || { echo "${parameter#*=}"; return; }
    done
    dms_default "$1"
}

check_orderable() {
    local problem
    problem=$(not_orderable "$(given ReplicationInstanceClass)" "$(given EngineVersion)")
    [[ -z $problem ]] || die "$problem. Nothing was made"
}

# --- the stack ------------------------------------------------------------------------------------------------------------------
# deploy_stack stops the task only when something changes.
deploy_stack() {
    make_change_set "$dms_stack" dms-setup.yaml \
        "StackName=$main_stack" "DmsDatabaseSecretArn=$(output DmsDatabaseSecretArn)" "DatabaseSecurityGroupId=$(output DatabaseSecurityGroupId)" \
        "KinesisStreamArn=$(output KinesisStreamArn)" "AlarmTopicArn=$(output AlarmTopicArn)" "VpcId=$(output VpcId)" \
        "SubnetIds=$(IFS=,; echo "${subnets[*]}")" "Network=$network" ${parameters[@]+"${parameters[@]}"}
    [[ -n $change_set ]] || return 0
    local note=''
    if [[ $verb == update ]]; then
        use_task
        stop_task # DMS changes neither a running task nor its endpoints
        note='the task was stopped for the update and is not resumed; its slot keeps the WAL'
    else
        check_orderable
    fi
    say "waiting for it (a replication instance takes 5 to 15 minutes)"
    execute_change_set "$dms_stack" "$note"
}

# test_connection NAME ARN tests an endpoint, because a task that cannot connect would only say so
# much later.
test_connection() {
    local look answer status reason
    ask dms test-connection --replication-instance-arn "$(output ReplicationInstanceArn)" --endpoint-arn "$2" >/dev/null
    for ((look = 0; look < 60; look++)); do
        answer=$(ask dms describe-connections --filters "Name=endpoint-arn,Values=$2" --query 'Connections[0].[Status,LastFailureMessage]')
        IFS=$'\t' read -r status reason <<<"$answer"
        case $status in
        successful) say "connection to the $1: successful"; return ;;
        failed) die "connection to the $1 failed: $reason. The stack is deployed, the task was not started" ;;
        esac
        sleep "$poll"
    done
    die "connection to the $1 is still $status after 5 minutes. The stack is deployed, the task was not started; run this again"
}

if lacks dms; then die "region $region has no AWS DMS (AWS::DMS::ReplicationTask): the relay is walrelay there, make walrelay STAGE=$stage REGION=$region"; fi
if $stop; then
    use_task
    stop_task
    print_task
    exit
fi
count=$(walrelay_count)
((count == 0)) || die "walrelay runs ($count tasks), and both relays at once send every event twice. Stop it first: make walrelay STAGE=$stage REGION=$region STOP=1"
read_outputs "$main_stack" DatabaseSecurityGroupId DmsDatabaseSecretArn KinesisStreamArn AlarmTopicArn VpcId
if [[ $stage == prod && ${parameters[*]-} != *MultiAZ=* ]]; then parameters+=(MultiAZ=true); fi
find_subnets "$(output VpcId)"
account=$(output KinesisStreamArn | cut -d: -f5)
ensure_role dms-vpc-role AmazonDMSVPCManagementRole ",\"Condition\":{\"StringEquals\":{\"aws:SourceAccount\":\"$account\"}}"
ensure_role dms-cloudwatch-logs-role AmazonDMSCloudWatchLogsRole ''
if $made_vpc_role; then wait_for_vpc_role; fi
deploy_stack
use_task
read_task
if [[ $task_status != running ]]; then
    test_connection "database" "$(output SourceEndpointArn)"
    test_connection "stream" "$(output TargetEndpointArn)"
    start_task
fi
print_task
