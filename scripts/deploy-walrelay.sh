#!/usr/bin/env bash
# Deploys walrelay-setup.yaml beside the main stack, with an image of this checkout, and makes the
# service run. Safe to run at any time, because it finishes what an earlier run began, and leaves an
# unchanged image and stack alone.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh
# shellcheck source=scripts/stack.sh
. scripts/stack.sh

usage='usage: scripts/deploy-walrelay.sh <stage> <region> [--stop] [--from dms] [Parameter=Value ...]
  --stop            end every task and change nothing else; commits wait in the WAL
  --from dms        stop the DMS task, and go on where its slot stands instead of loading the table
  Parameter=Value   Tasks=1, SlotLagAlarm=4294967296: kept in later runs'
stop=false from='' names=() parameters=()
while (($# > 0)); do
    case $1 in
    --stop) stop=true ;;
    --from)
        [[ ${2:-} == dms ]] || die "--from takes dms"$'\n'"$usage"
        from=$2
        shift
        ;;
    Tasks=[1-3]) tasks=${1#*=} ;;
    SlotLagAlarm=*) parameters+=("$1") ;;
    -* | *=*) die "no such option: $1"$'\n'"$usage" ;;
    *) names+=("$1") ;;
    esac
    shift
done
((${#names[@]} == 2)) || die "give a stage and a region"$'\n'"$usage"
stage_and_region "${names[@]}"

# set_count N sets the desired count to N, unless it is N already, and waits until N tasks run.
set_count() {
    local count
    count=$(walrelay_count)
    if ((count != $1)); then
        say "setting the desired count of tasks to $1"
        ask ecs update-service --cluster "$walrelay_stack" --service walrelay --desired-count "$1" >/dev/null
    fi
    cli ecs wait services-stable --cluster "$walrelay_stack" --services walrelay >/dev/null 2>&1 ||
        die "the service has not got $1 running tasks after 10 minutes: $(service_event)$(last_error)"
}

# service_event prints the latest message of ECS, and when it came. It may be about an earlier
# failure.
service_event() {
    local at message
    IFS=$'\t' read -r at message < <(ask ecs describe-services --cluster "$walrelay_stack" --services walrelay --query 'services[0].events[0].[createdAt,message]')
    printf '%s (%s)' "$message" "$(when "$at")"
}

# relay_log prints the lines of walrelay's log that have the word, of the last minutes and of one task or of all.
relay_log() { # WORD MINUTES [TASK]
    ask logs filter-log-events --log-group-name "/ecs/$walrelay_stack" --log-stream-name-prefix "walrelay/walrelay/${3:-}" --filter-pattern "\"$1\"" \
        --start-time "$(($(date +%s) - 60 * $2))000" --query 'events[].[message]'
}
last_error() {
    local line
    line=$(relay_log 'walrelay stopped' 15 | tail -n 1)
    [[ $line != *walrelay\ stopped* ]] || printf '\nIts last words: %s' "$line"
}

# slot_line prints the newest slot line of the running task that streams or loads. Each task writes
# one a minute. It ignores lines of a task that a deployment has ended meanwhile.
slot_line() {
    local tasks lines task
    tasks=$(ask ecs list-tasks --cluster "$walrelay_stack" --service-name walrelay --desired-status RUNNING --query 'taskArns[]' | tr '\t' '\n')
    lines=$(
        for task in $tasks; do relay_log slot_lag_bytes 2 "${task##*/}"; done
    )
    grep -E '"streaming": ?1[,}]' <<<"$lines" | tail -n 1 || true
}
member() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" <<<"$2"; }

# print_relay prints state, slot and lag. It ends with an error when no task streams after three minutes.
print_relay() {
    local look line='' count
    count=$(walrelay_count)
    if ((count == 0)); then
        echo "walrelay of $main_stack: stopped; slot $slot keeps the WAL"
        return
    fi
    for ((look = 0; look < 36; look++)); do
        line=$(slot_line)
        [[ -z $line ]] || break
        sleep 5
    done
    [[ -n $line ]] || die "$count tasks of walrelay run and none streams after 3 minutes: $(service_event)$(last_error)
The whole log: aws logs filter-log-events --region $region --log-group-name /ecs/$walrelay_stack"
    echo "walrelay of $main_stack: $count tasks, one streams; slot $slot, $(member slot_lag_bytes "$line") bytes behind, $(member retained_wal_bytes "$line") bytes of WAL kept"
}

# --- what must not run at the same time -----------------------------------------------------------------------------------------
dms_task_status() {
    local status
    status=$(stack_status "$dms_stack")
    if [[ $status == absent ]]; then
        echo absent
        return
    fi
    # A question that failed must not count as "no task". Otherwise walrelay would start beside a
    # running task.
    if status=$(cli dms describe-replication-tasks --filters "Name=replication-task-id,Values=$main_stack-replication-task" --without-settings \
        --query 'ReplicationTasks[0].Status' 2>&1); then
        tail -n 1 <<<"$status"
    elif [[ $status == *ResourceNotFoundFault* ]]; then
        echo absent
    else
        die "$(explain 'dms describe-replication-tasks' "$status")"
    fi
}

# --- parts ----------------------------------------------------------------------------------------------------------------------
# ensure_service_role makes ECS's role. A new account lacks the role until somebody has used ECS,
# and the first service fails without it.
ensure_service_role() {
    local answer
    answer=$(cli iam get-role --role-name AWSServiceRoleForECS --query Role.RoleName 2>&1) && return
    [[ $answer == *NoSuchEntity* ]] || return 0 # credentials that may not look at it have to trust it
    say "making the role AWSServiceRoleForECS, which ECS needs once per account; it stays when the stacks go"
    answer=$(cli iam create-service-linked-role --aws-service-name ecs.amazonaws.com 2>&1) || [[ $answer == *'has been taken'* ]] ||
        die "role AWSServiceRoleForECS is missing, and these credentials cannot make it: have an administrator run aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com ($(explain iam "$answer"))"
}

deploy_stack() { # TASKS [Image=...]
    make_change_set "$walrelay_stack" walrelay-setup.yaml \
        "StackName=$main_stack" "Tasks=$1" "SlotName=$slot" "DatabaseEndpoint=$(output DatabaseEndpoint)" \
        "DmsDatabaseSecretArn=$(output DmsDatabaseSecretArn)" "DatabaseSecretArn=$(output DatabaseSecretArn)" \
        "DatabaseSecurityGroupId=$(output DatabaseSecurityGroupId)" "KinesisStreamName=$(output KinesisStreamName)" \
        "KinesisStreamArn=$(output KinesisStreamArn)" "EventBusName=$(output EventBusName)" \
        "EventBusLogGroupName=$(output EventBusLogGroupName)" "FailureQueueUrl=$(output FailureQueueUrl)" \
        "DiscardQueueUrl=$(output DiscardQueueUrl)" \
        "AlarmTopicArn=$(output AlarmTopicArn)" "VpcId=$(output VpcId)" \
        "SubnetIds=$(IFS=,; echo "${subnets[*]}")" "Network=$network" "${@:2}" ${parameters[@]+"${parameters[@]}"}
    [[ -z $change_set ]] || execute_change_set "$walrelay_stack"
}

# push_image builds the image and sets image to repository@digest. An image that is there already is not pushed again.
push_image() {
    local repository password digest
    repository=$(ask cloudformation describe-stacks --stack-name "$walrelay_stack" --query "Stacks[0].Outputs[?OutputKey=='RepositoryUri'].OutputValue")
    say "building the image"
    password=$(ask ecr get-login-password) # on standard input, because every user of this machine sees arguments
    digest=$(go run ./infra/image -out .cache/image -push "$repository" <<<"$password") || die "the image was not pushed, see above"
    image=$repository@$digest
}

if $stop; then
    read_outputs "$walrelay_stack" ClusterName
    slot=$(ask cloudformation describe-stacks --stack-name "$walrelay_stack" --query "Stacks[0].Parameters[?ParameterKey=='SlotName'].ParameterValue")
    set_count 0
    print_relay
    exit
fi
read_outputs "$main_stack" DatabaseEndpoint DatabaseSecretArn DmsDatabaseSecretArn DatabaseSecurityGroupId KinesisStreamName KinesisStreamArn \
    EventBusName EventBusLogGroupName FailureQueueUrl DiscardQueueUrl AlarmTopicArn VpcId SlotName MigrateFunctionName
slot=$(output SlotName)
status=$(dms_task_status)
case $status in
absent | None | stopped | failed | ready) ;;
*)
    [[ $from == dms ]] || die "the DMS task is $status, and both relays at once send every event twice. Stop it first:
  make dms STAGE=$stage REGION=$region STOP=1        walrelay then loads the table: every retained event comes again
or go on where it stands, which resends next to nothing:
  make walrelay STAGE=$stage REGION=$region FROM=dms"
    ;;
esac
[[ $from != dms || $status != absent ]] || die "there is no DMS task to go on from: make walrelay STAGE=$stage REGION=$region"

status=$(stack_status "$walrelay_stack")
if [[ -z ${tasks:-} && $status != absent ]]; then
    tasks=$(ask cloudformation describe-stacks --stack-name "$walrelay_stack" --query "Stacks[0].Parameters[?ParameterKey=='Tasks'].ParameterValue")
fi
[[ ${tasks:-} == [1-3] ]] || tasks=2
find_subnets "$(output VpcId)"
ensure_service_role
# The repository comes first, because the image has to be there before the service.
case $status in
absent | ROLLBACK_COMPLETE | REVIEW_IN_PROGRESS) deploy_stack "$tasks" ;;
esac
push_image
if [[ $from == dms ]]; then
    . scripts/switch-relay.sh
fi
deploy_stack "$tasks" "Image=$image"
set_count "$tasks"
print_relay
if [[ $from == dms ]]; then audit_switch; fi
