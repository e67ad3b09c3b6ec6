# shellcheck shell=bash
# Sourced by deploy-dms.sh, after aws.sh and with $task set to the ARN. It stops, starts and resumes
# the replication task, and says why it does not run.

# shellcheck disable=SC2154 # aws.sh sets main_stack, dms_stack and region
task_name=$main_stack-replication-task
log_group=dms-tasks-$dms_stack-replication-instance
poll=5 # seconds between two looks

# read_task sets task_status, started ("None" before the first start), and why the task last stopped.
read_task() {
    local answer
    answer=$(ask dms describe-replication-tasks --filters "Name=replication-task-arn,Values=$task" --without-settings --query \
        'ReplicationTasks[0].[Status,ReplicationTaskStats.FreshStartDate,StopReason,LastFailureMessage]')
    IFS=$'\t' read -r task_status started stop_reason failure <<<"$answer"
}

# read_log keeps the last errors that the task logged since it was last started, if there are any.
# The API itself says only FATAL_ERROR. Without the time, an error that was repaired long ago would
# be taken for today's.
read_log() {
    local since
    since=$(ask dms describe-replication-tasks --filters "Name=replication-task-arn,Values=$task" --without-settings --query \
        'ReplicationTasks[0].ReplicationTaskStats.StartDate')
    since=$(milliseconds "$since")
    task_log=''
    [[ $since =~ ^[0-9]+$ ]] || return 0 # never started
    task_log=$(cli logs filter-log-events --log-group-name "$log_group" --log-stream-names "dms-task-$main_stack" --start-time "$since" \
        --filter-pattern '"]E:"' --query 'events[].[message]' 2>/dev/null | tail -n 20) || task_log=''
}

# find_slot sets task_slot to usable or lost, or to several if it cannot know which slot is DMS's.
# It asks the database, because the task's log may be from before a repair, and a slot can be gone
# without a line in the log. dms-setup.yaml sets the plugin. Slots of other plugins are walrelay's
# or another tool's, and say nothing about DMS. slot_names has every slot with the plugin.
find_slot() {
    local answer slots
    answer=$(
        read_outputs "$main_stack" MigrateFunctionName
        call_migrate '{"command":"slots"}'
    ) || die "the database could not be asked whether the slot of $task_name is there, so the task was not touched"
    slots=$(tr '{' '\n' <<<"$answer" | grep '"plugin":"test_decoding"') || true
    slot_names=$(awk -F '"name":"|"' 'NF { print $2 }' <<<"$slots" | paste -sd ' ' -)
    task_slot=lost
    if [[ $slots == *'"usable":true'* ]]; then task_slot=usable; fi
    # The usable slot may be another tool's, and the lost one DMS's.
    if [[ $task_slot == usable && $slot_names == *' '* ]]; then task_slot=several; fi
}

# task_failed ends the script with the task's own words, and with the repair if the task has no slot
# to continue from.
task_failed() {
    local reason
    local by_hand="aws dms start-replication-task --region $region --replication-task-arn $task --start-replication-task-type"
    read_log
    reason=$(printf '%s\n' "$failure" "$stop_reason" "$(tail -n 1 <<<"$task_log")" | grep -vx 'None\|' | paste -sd ' ' -) || reason='no reason given'
    find_slot
    case $task_slot in
    lost)
        die "task $task_name is $task_status ($reason), and the database has no replication slot from which DMS could go on.
The WAL it had not read is gone; the rows in outbox are not. When the cause is gone, send every row of outbox again (duplicates keep their event ids) and go on with a new slot:
  $by_hand reload-target" ;;
    several)
        die "task $task_name is $task_status ($reason), and several slots have the plugin of DMS, test_decoding: $slot_names. This script cannot know which one is the task's, so it does not resume the task: without its slot DMS would go on from a new one, and skip what was not read.
The slots: SELECT slot_name, active, wal_status FROM pg_replication_slots WHERE plugin = 'test_decoding';
If you know that the task's slot is there and not lost: $by_hand resume-processing
Otherwise send every row of outbox again (duplicates keep their event ids): $by_hand reload-target" ;;
    esac
    die "task $task_name is $task_status: $reason. Its slot keeps the WAL. When the cause is gone, run this again: it resumes.
The whole log: aws logs filter-log-events --region $region --log-group-name $log_group"
}

# wait_for_task STATUS ends the script when the task fails, or has not got there after 15 minutes.
wait_for_task() {
    local look
    for ((look = 0; look < 900 / poll; look++)); do
        read_task
        [[ $task_status != "$1" ]] || return 0
        # For half a minute the status may still be the state that a start or a stop has just left.
        if ((look >= 6)) && [[ $task_status == failed || $task_status == stopped ]]; then task_failed; fi
        sleep "$poll"
    done
    die "task $task_name is still $task_status after 15 minutes, not $1: look at it in the DMS console, then run this again"
}

# stop_task returns when no task runs. It leaves a failed or never started task as it is.
stop_task() {
    read_task
    case $task_status in
    starting) wait_for_task running ;; # it cannot be stopped yet
    stopping) wait_for_task stopped ;;
    esac
    [[ $task_status == running ]] || return 0
    say "stopping $task_name"
    ask dms stop-replication-task --replication-task-arn "$task" >/dev/null
    wait_for_task stopped
}

# start_task starts the task once and resumes it ever after. A second start-replication would make a
# new slot. What was committed since the old slot's position would then come only if its row is
# still in the table.
start_task() {
    local how=resume-processing
    read_task
    case $task_status in
    running) return 0 ;;
    ready | stopped | failed) ;;
    starting) wait_for_task running && return 0 ;;
    *) die "task $task_name is $task_status: run this again when that is over" ;;
    esac
    # A task that was stopped may have lost its slot just as one that failed.
    if [[ $started != None ]]; then
        find_slot
        [[ $task_slot == usable ]] || task_failed # resuming would fail, or go on from a new slot as if nothing were missing
    fi
    # The only valid first call. It cannot skip a row, because it loads the table.
    [[ $started != None ]] || how=start-replication
    say "$how $task_name"
    ask dms start-replication-task --replication-task-arn "$task" --start-replication-task-type "$how" >/dev/null
    wait_for_task running
    # A task that cannot read its source or reach its target runs for a moment before it fails.
    sleep 30
    read_task
    [[ $task_status == running ]] || task_failed
}

print_task() {
    local stats
    read_task
    stats=$(ask dms describe-replication-tasks --filters "Name=replication-task-arn,Values=$task" --without-settings --query \
        'ReplicationTasks[0].ReplicationTaskStats.[FullLoadProgressPercent,TablesLoaded,TablesErrored]')
    awk -v name="$task_name" -v status="$task_status" \
        '{ print name ": " status "; full load " $1 " %, tables loaded " $2 ", tables with errors " $3 }' <<<"$stats"
}
