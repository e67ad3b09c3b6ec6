#!/usr/bin/env bash
# Removes a stage. The relays' stacks go first, walrelay's and that of DMS with its task stopped,
# then the main stack. Then it lists what is left and still costs money.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# == 2)) || die "usage: scripts/remove.sh <stage> <region>"
[[ -x node_modules/.bin/osls ]] || die "osls is not installed: run npm ci"
stage_and_region "$@"

main_status=$(stack_status "$main_stack") dms_status=$(stack_status "$dms_stack") walrelay_status=$(stack_status "$walrelay_stack")
[[ $main_status$dms_status$walrelay_status != absentabsentabsent ]] || die "there is no stage $stage in $region: is it another region?"
main_id='' dms_id='' walrelay_id='' # a deleted stack is only found by its id
if [[ $main_status != absent ]]; then
    IFS=$'\t' read -r main_id protected < <(ask cloudformation describe-stacks --stack-name "$main_stack" --query 'Stacks[0].[StackId,EnableTerminationProtection]')
    # Asked before anything is deleted, because a relay without its database must not be left.
    [[ $protected != True ]] || die "stack $main_stack is protected; nothing was removed. To remove it for good:
  aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name $main_stack --region $region
then this again"
    # The stack's deletion would end in DELETE_FAILED, with its relay gone.
    database=$(ask cloudformation list-stack-resources --stack-name "$main_stack" --query "StackResourceSummaries[?LogicalResourceId=='Database'].PhysicalResourceId")
    protected=$(ask rds describe-db-instances --query "DBInstances[?DeletionProtection&&DBInstanceIdentifier=='$database'].DBInstanceIdentifier")
    [[ ${protected:-None} == None ]] || die "database $protected is protected; nothing was removed. To remove it for good:
  aws rds modify-db-instance --no-deletion-protection --apply-immediately --db-instance-identifier $protected --region $region
then this again"
fi
# delete_stack STACK ID deletes the stack of a relay. The main stack would keep a network and a database that a relay still uses, and
# end in DELETE_FAILED.
delete_stack() {
    say "deleting stack $1 (some minutes)"
    ask cloudformation delete-stack --stack-name "$1" >/dev/null
    cli cloudformation wait stack-delete-complete --stack-name "$2" >/dev/null 2>&1 ||
        die "stack $1 could not be deleted: $(stack_failure "$2"). The main stack is untouched"
}
if [[ $walrelay_status != absent ]]; then
    walrelay_id=$(ask cloudformation describe-stacks --stack-name "$walrelay_stack" --query 'Stacks[0].StackId')
    delete_stack "$walrelay_stack" "$walrelay_id"
fi
if [[ $dms_status != absent ]]; then
    dms_id=$(ask cloudformation describe-stacks --stack-name "$dms_stack" --query 'Stacks[0].StackId')
    outputs=$(ask cloudformation describe-stacks --stack-name "$dms_stack" --query 'Stacks[0].Outputs[].[OutputKey,OutputValue]')
    # A running task cannot be deleted. A deployment that failed has none.
    if [[ -n $(output ReplicationTaskArn) ]]; then scripts/deploy-dms.sh "$stage" "$region" --stop; fi
    delete_stack "$dms_stack" "$dms_id"
fi
if [[ $main_status != absent ]]; then
    say "removing stack $main_stack (some minutes)"
    node_modules/.bin/osls remove --stage "$stage" --region "$region" ||
        die "stack $main_stack was not removed, see above${walrelay_id:+; stack $walrelay_stack is}${dms_id:+; stack $dms_stack is}"
fi

# What costs money and may outlive its stack, which is kept resources, snapshots, the logs that
# services make, and what a removal by hand forgot.
left() { # SORT QUERY-ARGUMENTS...
    local sort=$1 answer
    shift
    answer=$(ask "$@")
    # A name of this stage ends after the stage or continues with a separator, because dev is not
    # dev2.
    tr '\t' '\n' <<<"$answer" | grep -E "rds-outbox-demo-$stage(\$|[-/])" | sed "s|^|  $sort: |" || true
}
kept() { # STACK-ID
    [[ -n $1 ]] || return 0
    ask cloudformation list-stack-resources --stack-name "$1" --query \
        "StackResourceSummaries[?ResourceStatus!='DELETE_COMPLETE'].[ResourceType,PhysicalResourceId]" | awk -F '\t' 'NF == 2 { print "  " $1 ": " $2 }'
}
found=$(
    set -e # is not inherited here, and a look that failed must not pass for "nothing"
    kept "$walrelay_id"
    kept "$dms_id"
    kept "$main_id"
    left 'DMS instance' dms describe-replication-instances --query 'ReplicationInstances[].ReplicationInstanceIdentifier'
    left 'ECS cluster' ecs list-clusters --query 'clusterArns[]'
    left 'image repository' ecr describe-repositories --query 'repositories[].repositoryName'
    left 'database' rds describe-db-instances --query 'DBInstances[].DBInstanceIdentifier'
    left 'snapshot' rds describe-db-snapshots --query 'DBSnapshots[].DBSnapshotIdentifier'
    left 'stream' kinesis list-streams --query 'StreamNames[]'
    left 'bucket' s3api list-buckets --query 'Buckets[].Name'
    left 'log group' logs describe-log-groups --query 'logGroups[].logGroupName'
    for stack in "$main_stack" "$dms_stack" "$walrelay_stack"; do
        ask ec2 describe-vpc-endpoints --filters "Name=tag:aws:cloudformation:stack-name,Values=$stack" \
            --query "VpcEndpoints[?State!='deleted'].[VpcEndpointId]" | awk '/^vpce-/ { print "  VPC endpoint: " $1 }'
    done
)
if [[ -n $found ]]; then
    die "stage $stage is removed, but this is left and may cost money (delete it in the console if nobody needs it):
$found"
fi
say "stage $stage is removed; nothing that costs money is left. The account-wide roles dms-vpc-role, dms-cloudwatch-logs-role and AWSServiceRoleForECS stay, where they were made"
