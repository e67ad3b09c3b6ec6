# shellcheck shell=bash
# Sourced by deploy-walrelay.sh for --from dms, with the image pushed. It stops the DMS task and
# copies its slot, so that walrelay sends what follows and does not load the table. audit_switch
# looks at the result.

# An earlier run may have copied the slot, and walrelay may read it. Stopping both relays for a copy that is refused would only stop
# the path.
# shellcheck disable=SC2154 # set by those who source this
answer=$(call_migrate '{"command":"slots"}')
[[ $answer != *"\"name\":\"$slot\""* ]] || die "slot $slot is there, because an earlier run has copied it or walrelay has used it. Nothing was stopped or copied.
To go on where that slot stands, stop DMS and start walrelay:
  make dms STAGE=$stage REGION=$region STOP=1
  make walrelay STAGE=$stage REGION=$region"
scripts/deploy-dms.sh "$stage" "$region" --stop
stopped=$(ask dms describe-replication-tasks --filters "Name=replication-task-id,Values=$main_stack-replication-task" --without-settings \
    --query 'ReplicationTasks[0].ReplicationTaskStats.StopDate')
# Nobody may read the slot while it is copied, and walrelay must not have made its own slot.
deploy_stack 0 "Image=$image"
set_count 0
say "copying the slot of DMS to $slot"
scripts/run-outboxctl.sh "$stage" "$region" copy-slot --from dms ||
    die "the slot was not copied. Nothing is lost: both relays stand still, and the slot of DMS keeps the WAL. To go back: make dms STAGE=$stage REGION=$region"

# audit_window TIME prints from when on to audit after a task that stopped at TIME. Rows that the
# task confirmed too early are older than its stop, which may be days ago, so audit's own 24 hours
# would miss them. The day before the stop is for rows that the task was behind with, and for its
# retries. The log of the bus keeps 14 days, and the audit refuses rows that are older. The last of
# the 336 hours is for the audit itself. A task without a StopDate gets the whole window.
audit_window() {
    node -p 'const from = process.argv[1] - 24 * 3600e3
        from > Date.now() - 335 * 3600e3 ? "--from " + new Date(from).toISOString() : "--since 335h"' "$(milliseconds "$1")"
}

audit_switch() {
    local look window
    window=$(audit_window "$stopped")
    # Events on their way count as missing until they have arrived.
    for ((look = 0; look < 5; look++)); do
        # shellcheck disable=SC2086 # an option and its value
        if scripts/run-outboxctl.sh "$stage" "$region" audit $window; then
            say "walrelay has gone on where DMS stopped. Not documented is when DMS confirms to its slot what Kinesis has accepted:
events may have come twice (the audit counts them), and if it ever confirms too early, the audit names what is missing of its window and
  make outboxctl STAGE=$stage REGION=$region ARGS='replay ...'
sends it. The DMS stack is still there, with a slot that keeps WAL. When you do not want to go back, delete it:
  aws cloudformation delete-stack --stack-name $dms_stack --region $region"
            return
        fi
        sleep 30
    done
    die "the audit is not clean: docs/outboxctl.md says how to send again what is missing"
}
