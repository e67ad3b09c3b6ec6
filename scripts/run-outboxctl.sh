#!/usr/bin/env bash
# Runs outboxctl once in the cluster of walrelay, because nothing else reaches the database there.
# Prints outboxctl's output and ends with its exit code, or with 1 when no task ran.
#   scripts/run-outboxctl.sh prod eu-west-1 audit --from 2026-03-01T12:00:00Z
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# >= 3)) || die "usage: scripts/run-outboxctl.sh <stage> <region> <command> [argument ...]"
stage_and_region "$1" "$2"
shift 2
words=''
for word in "$@"; do
    [[ $word != *[\"\\]* ]] || die "argument $word: without quotes and backslashes, please"
    words+=",\"$word\""
done
# Asked for at every run. The value that `make walrelay` found may be older than the stage's last deployment, and purge would
# delete rows that the stage now keeps.
read_outputs "$main_stack" RetentionDays
days=$(output RetentionDays)
read_outputs "$walrelay_stack" ClusterName LogGroupName TaskNetwork
cluster=$(output ClusterName)
# Two answers, because a task that cannot be placed is not an error of the call.
answer=$(ask ecs run-task --cluster "$cluster" --task-definition "$main_stack-outboxctl" --launch-type FARGATE \
    --network-configuration "$(output TaskNetwork)" --overrides "{\"containerOverrides\":[{\"name\":\"outboxctl\",\"command\":[${words#,}],\"environment\":[{\"name\":\"RETENTION_DAYS\",\"value\":\"$days\"}]}]}" \
    --query '[tasks[0].taskArn,failures[0].reason]')
IFS=$'\t' read -r task reason <<<"$answer"
[[ $task != None ]] || die "no task was started: $reason"
say "task ${task##*/} runs outboxctl $*"
# The task does not end with this script. A replay would go on unseen, and keep out the next one.
trap 'say "the task goes on. To end it: aws ecs stop-task --region $region --cluster $cluster --task $task"; exit 130' INT TERM
look=0
until [[ $(ask ecs describe-tasks --cluster "$cluster" --tasks "$task" --query 'tasks[0].lastStatus') == STOPPED ]]; do
    ((look++ < 720)) || die "task ${task##*/} still runs after an hour: look at it in the ECS console"
    sleep 5
done
answer=$(ask ecs describe-tasks --cluster "$cluster" --tasks "$task" --query 'tasks[0].[containers[0].exitCode,stoppedReason]')
IFS=$'\t' read -r code reason <<<"$answer"
[[ $code != None ]] || die "outboxctl did not run: $reason"
# The log may be later than the task. It is complete when both outputs of outboxctl have ended with
# LAST_LINE of walrelay-setup.yaml.
last='outboxctl: end'
for ((look = 0; look < 60; look++)); do
    lines=$(ask logs filter-log-events --log-group-name "$(output LogGroupName)" --log-stream-names "outboxctl/outboxctl/${task##*/}" \
        --query 'events[].[message]')
    (($(grep -cx "$last" <<<"$lines" || true) < 2)) || break
    sleep 2
done
grep -vx "None\|$last" <<<"$lines" || true
((look < 60)) || say "the log has no end after 2 minutes, so lines may be missing. Later: aws logs filter-log-events --region $region \
    --log-group-name $(output LogGroupName) --log-stream-names outboxctl/outboxctl/${task##*/}"
exit "$code"
