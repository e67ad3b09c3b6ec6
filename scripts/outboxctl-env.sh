#!/usr/bin/env bash
# Prints outboxctl's settings for a deployed stage, from the stack's outputs. There is no secret in
# them, because outboxctl fetches the password from Secrets Manager.
#   scripts/outboxctl-env.sh prod eu-west-1 >prod.env && bin/outboxctl audit --env-file prod.env
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# == 2)) || die "usage: scripts/outboxctl-env.sh <stage> <region>"
stage_and_region "$@"
read_outputs "$main_stack" DatabaseEndpoint DatabaseSecretArn KinesisStreamName EventBusName EventBusLogGroupName FailureQueueUrl \
    DiscardQueueUrl ConsumerFunctionName SlotName RetentionDays
cat <<END
# outboxctl's set-up for $main_stack in $region, from the stack's outputs (scripts/outboxctl-env.sh).
AWS_REGION=$region
DB_HOST=$(output DatabaseEndpoint)
DB_NAME=outboxdb
DB_USER=dbadmin
DB_SECRET_ARN=$(output DatabaseSecretArn)
DB_SSL=true
STREAM_NAME=$(output KinesisStreamName)
# walrelay's slot. With DMS set the name of its slot: SELECT slot_name FROM pg_replication_slots
SLOT_NAME=$(output SlotName)
EVENT_BUS_NAME=$(output EventBusName)
BUS_LOG_GROUP=$(output EventBusLogGroupName)
FAILURE_QUEUE_URL=$(output FailureQueueUrl)
DISCARD_QUEUE_URL=$(output DiscardQueueUrl)
CONSUMER_FUNCTION=$(output ConsumerFunctionName)
RETENTION_DAYS=$(output RetentionDays)
END
[[ -z ${AWS_ENDPOINT_URL:-} ]] || printf 'AWS_ENDPOINT_URL=%s\n' "$AWS_ENDPOINT_URL"
