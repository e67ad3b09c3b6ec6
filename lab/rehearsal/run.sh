#!/usr/bin/env bash
# Rehearses a stage's whole life against an emulated AWS. It deploys, migrates, follows an event
# from the API to the bus, redeploys, runs both relays, and removes the stage.
# Real are osls, the AWS CLI, our scripts, the functions' zips, walrelay's image, PostgreSQL; the emulator stands in for AWS.
#
# Without what it needs it says `rehearse: not run: <reason>` and ends with 0; with CI=true that is a failure. It works on a copy of
# the tree and leaves nothing behind. Exit code 0, or 1 with the step that failed and what that step printed.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD stage=dev region=us-east-1 stack=rds-outbox-demo-dev

not_run() {
    echo "rehearse: not run: $1"
    [[ ${CI:-} != true ]] || exit 1
    exit 0
}
if [[ ${1:-} != --with-database ]]; then
    [[ $(uname) == Linux ]] || not_run "the functions are Linux programs"
    command -v python3 >/dev/null || not_run "python3 is not installed"
    [[ ! -x .cache/rehearsal/bin/python3 ]] || PATH=$root/.cache/rehearsal/bin:$PATH
    PATH=$(python3 -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH # the CLI itself, and not a wrapper that looks for it each time
    install='python3 -m venv .cache/rehearsal && .cache/rehearsal/bin/pip install -r lab/rehearsal/requirements.txt'
    moto=$(sed -n 's/^moto.*==//p' lab/rehearsal/requirements.txt)
    [[ $(python3 -c 'import moto; print(moto.__version__)' 2>/dev/null) == "$moto" ]] || not_run "python3 has no moto $moto: $install"
    command -v aws >/dev/null || not_run "the AWS CLI is not installed: $install"
    [[ -x node_modules/.bin/osls ]] || not_run "osls is not installed: npm ci --ignore-scripts"
    [[ -x bin/lab ]] || not_run "bin/lab is not built: make build"
    exec bin/lab with-postgres -throwaway -- lab/rehearsal/run.sh --with-database
fi

# --- the stage: a copy of the tree, an emulator, nothing of the caller's AWS ------------------------------------------------------
work=$(mktemp -d)
cleanup() {
    while read -r process; do kill "$process" 2>/dev/null || true; done <"$work/processes"
    rm -rf "$work"
}
touch "$work/processes"
trap cleanup EXIT
mkdir "$work/repo" "$work/bin" "$work/images" "$work/bus"
tar -cf - --exclude=./node_modules --exclude=./bin --exclude=./.git --exclude=./.data --exclude=./.cache --exclude=./.serverless . | tar -xf - -C "$work/repo"
ln -s "$root/node_modules" "$root/bin" "$work/repo/"
# The scripts wait for things that take minutes in AWS and no time here.
printf '#!/bin/sh\nexec %s 0.2\n' "$(command -v sleep)" >"$work/bin/sleep"
chmod +x "$work/bin/sleep"

# TEST_DATABASE_URL is postgres://dbadmin:<password>@127.0.0.1:<port>/outboxdb?sslmode=disable
[[ $TEST_DATABASE_URL =~ ^postgres://dbadmin:([^@]+)@([^:]+):([0-9]+)/outboxdb ]] || { echo "rehearse: cannot read TEST_DATABASE_URL"; exit 1; }
password=${BASH_REMATCH[1]} host=${BASH_REMATCH[2]} port=${BASH_REMATCH[3]}
free_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
unset AWS_PROFILE AWS_SESSION_TOKEN
export AWS_ENDPOINT_URL=http://127.0.0.1:$free_port AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=$region AWS_DEFAULT_REGION=$region
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_PAGER='' NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
export SLS_AWS_MONITORING_FREQUENCY=200 NODE_NO_WARNINGS=1
LAMBDA_GOARCH=$(go env GOHOSTARCH)
export LAMBDA_GOARCH WALRELAY_GOARCH=$LAMBDA_GOARCH
CGO_ENABLED=0 go build -trimpath -o "$work" ./lab/rehearsal/registry ./lab/rehearsal/traffic
"$work/registry" >"$work/registry.address" 2>"$work/registry.log" &
echo $! >>"$work/processes"
until [[ -s $work/registry.address ]]; do sleep 0.1; done
EMULATOR_REGISTRY=$(cat "$work/registry.address")
export EMULATOR_REGISTRY EMULATOR_IMAGES=$work/images
# The database is the local server, whatever endpoint the stack gives the functions.
MOTO_PORT=$free_port TMPDIR=$work EMULATOR_BUS=$work/bus EMULATOR_DMS_FAILURE=$work/dms-failure EMULATOR_PASSWORD_dbadmin=$password EMULATOR_ENV_DB_HOST=$host EMULATOR_ENV_DB_PORT=$port EMULATOR_ENV_DB_SSL=false \
    python3 lab/rehearsal/emulator >"$work/emulator.log" 2>&1 &
echo $! >>"$work/processes"
cd "$work/repo"

# --- steps ------------------------------------------------------------------------------------------------------------------------
# step NAME COMMAND... runs the command in a shell of its own that ends at the first failure. (As the condition of an if it would go on.)
step() {
    local name=$1 status=0
    shift
    set +e
    (set -e; "$@") >"$work/output" 2>&1
    status=$?
    set -e
    if ((status == 0)); then
        printf 'rehearse: %3ds  %s\n' "$SECONDS" "$name"
        return
    fi
    printf 'rehearse: %3ds  FAILED: %s\n' "$SECONDS" "$name"
    sed 's/^/    /' "$work/output"
    grep -v ' HTTP/1.1" 200' "$work/emulator.log" | tail -n 40 | sed 's/^/    emulator: /'
    exit 1
}
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" --output text "$@"; }
sql() { DATABASE_URL=$TEST_DATABASE_URL bin/lab psql <<<"$1"; }
output() { aws cloudformation describe-stacks --stack-name "$stack" --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"; }
eventually() { # COMMAND...: within three minutes, which say nothing about speed
    local until=$((SECONDS + 180))
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}
refused() { # COMMAND...: must fail
    if "$@"; then
        echo "succeeded, and must not"
        return 1
    fi
}
osls() { node_modules/.bin/osls "$@" --stage "$stage" --region "$region"; }

# inventory lists whatever a removed stage must not leave.
inventory() {
    python3 "$root/lab/rehearsal/inventory.py"
    pgrep -f "^$work/images" || true # tasks
}

emulator_answers() { eventually aws sts get-caller-identity; }
deploy() { scripts/deploy.sh "$stage" "$region" && output ApiEndpoint; }
outputs_are_there() {
    local name
    for name in ApiEndpoint DatabaseEndpoint DatabaseSecretArn KinesisStreamName KinesisStreamArn EventBusName EventBusArn \
        EventBusLogGroupName VpcId DatabaseSecurityGroupId; do
        [[ -n $(output "$name") ]] || { echo "no output $name"; return 1; }
    done
    scripts/url.sh "$stage" "$region" | grep -x "$(output ApiEndpoint)"
}
migrated() {
    local newest
    newest=$(find sql/migrations -name '*.sql' | sed 's|.*/0*||;s|_.*||' | sort -n | tail -n 1)
    sql "SELECT 'at version ' || max(version_id) AS version FROM goose_db_version;" | grep -w "at version $newest"
    scripts/migrate.sh "$stage" "$region" status
}

car() {
    "$work/traffic" request handlers/carapi/lambda/testdata/post-cars.json >"$work/request"
    aws lambda invoke --function-name "$stack-createCar" --payload "fileb://$work/request" "$work/answer"
    cat "$work/answer"
    "$work/traffic" id "$work/answer" >"$work/car"
}

walrelay() { PATH=$work/bin:$PATH scripts/deploy-walrelay.sh "$stage" "$region" "$@"; }
outboxctl() { PATH=$work/bin:$PATH scripts/run-outboxctl.sh "$stage" "$region" "$@"; }
# On RDS the grant of rds_replication lets the user of DMS replicate; elsewhere an attribute does.
walrelay_runs() {
    sql "SELECT 'member' AS rds_replication WHERE pg_has_role('outbox_dms_user', 'rds_replication', 'MEMBER');" | grep -w member
    sql "ALTER ROLE outbox_dms_user REPLICATION;"
    walrelay >"$work/state"
    grep 'walrelay of rds-outbox-demo-dev: 2 tasks, one streams; slot outbox_relay' "$work/state"
}
audited() { outboxctl audit --since 2h --grace 0s | tee /dev/stderr | grep 'ok:'; }
walrelay_again() {
    walrelay >"$work/again" 2>&1
    grep 'the repository has it already' "$work/again"
    grep 'is up to date' "$work/again"
}
# rolled deploys a new version of walrelay while cars are created and changed. The line of the new version shows that it runs, and the
# last events of the traffic come after the old tasks have ended.
rolled() {
    printf 'package main\n\nimport "os"\n\nfunc init() { _, _ = os.Stderr.WriteString("the new version\\n") }\n' >walrelay/cmd/walrelay/new_version.go
    "$work/traffic" send "$work/bus" >"$work/traffic.log" 2>&1 &
    local traffic=$! judged=true
    echo "$traffic" >>"$work/processes"
    eventually grep 'traffic: on the bus' "$work/traffic.log" || { cat "$work/traffic.log"; return 1; }
    walrelay
    [[ $(aws logs filter-log-events --log-group-name "/ecs/$stack-walrelay" --filter-pattern '"the new version"' --query 'length(events)') == 2 ]] ||
        { echo "the new version does not run twice"; return 1; }
    kill "$traffic"
    wait "$traffic" || judged=false
    cat "$work/traffic.log"
    $judged && grep '0 lost, 0 out of order, 0 wrong' "$work/traffic.log"
}
# Both tasks' sessions end after the rotation, so that both have to log in with the new password.
rotated() {
    scripts/migrate.sh "$stage" "$region" rotate dms
    sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'outbox_dms_user';"
    car
    event_arrives
}
# stand_in makes a slot as DMS would. walrelay sends from it, so everything that it has read is on
# the bus.
stand_in() {
    sql "SELECT pg_create_logical_replication_slot('dms_slot', 'test_decoding');"
    car
    event_arrives
    cp "$work/car" "$work/car.read"
    sql "SELECT count(*) FROM pg_logical_slot_get_changes('dms_slot', NULL, NULL);"
}
walrelay_stops() {
    refused dms 2>&1 | grep 'walrelay runs (2 tasks), and both relays at once send every event twice'
    walrelay --stop | grep 'stopped; slot outbox_relay keeps the WAL'
}

event_arrives() {
    local follower seen=true
    scripts/events.sh "$stage" "$region" >"$work/events" &
    follower=$!
    eventually grep -q "$(cat "$work/car")" "$work/events" || seen=false
    kill "$follower"
    if ! $seen; then
        aws logs filter-log-events --log-group-name "/ecs/$stack-walrelay" --query 'events[].[message]' | tail -n 40
        return 1
    fi
    grep "$(cat "$work/car")" "$work/events" >"$work/event"
    "$work/traffic" event "$(cat "$work/car")" "$work/event"
}

# counted checks that the rule put the event into the queue, the mapping brought it to carStats, and
# carStats logged in as its own user.
counted() { sql "$("$work/traffic" counted)" | grep -w 'counted once'; }
event_is_counted() {
    eventually counted || { aws logs tail "/aws/lambda/$stack-carStats"; return 1; }
}

# In dev the canary's schedule is switched off, but its function is deployed and works.
canary_beats() {
    aws lambda invoke --function-name "$stack-canary" --payload '{}' "$work/answer"
    cat "$work/answer"
    sed -n 's/.*"eventId":"\([^"]*\)".*/\1/p' "$work/answer" >"$work/beat"
    [[ -s $work/beat ]] && eventually beat_arrived
}
beat_arrived() { grep -f "$work/beat" "$work/bus/bus.jsonl" | grep '"source": "outbox.canary", "detailType": "CanaryBeat"'; }

# retention is deployed switched off, because DMS is the default relay.
retention_is_off() {
    aws lambda invoke --function-name "$stack-retention" --payload '{}' "$work/answer"
    grep '"enabled":false' "$work/answer"
    sql "SELECT 'event kept' AS it FROM outbox LIMIT 1;" | grep -w 'event kept'
}

new_migration() {
    printf -- '-- +goose Up\nCREATE TABLE rehearsal (id integer);\n-- +goose Down\nDROP TABLE rehearsal;\n' >sql/migrations/09998_rehearsal.sql
    osls deploy
    sql "SELECT 'made' AS it FROM rehearsal RIGHT JOIN (SELECT 1) AS one ON true;" | grep -w made
}
broken_migration() {
    printf -- '-- +goose Up\nSELEC 1;\n' >sql/migrations/09999_broken.sql
    refused osls deploy >"$work/broken" 2>&1
    rm sql/migrations/09999_broken.sql
    grep '09999_broken.sql' "$work/broken"
    grep 'syntax error at or near "SELEC"' "$work/broken"
}

dms() { PATH=$work/bin:$PATH scripts/deploy-dms.sh "$stage" "$region" "$@"; }
dms_runs() {
    dms | grep ': running'
    dms 2>&1 | grep 'is up to date'
}
# dms_fails_today has a log that still has an error of eleven days ago, whose cause was repaired. It
# is not why the task fails today.
dms_fails_today() {
    local group=dms-tasks-$stack-dms-replication-instance
    aws logs create-log-stream --log-group-name "$group" --log-stream-name "dms-task-$stack"
    aws logs put-log-events --log-group-name "$group" --log-stream-name "dms-task-$stack" --log-events \
        "timestamp=$(($(date +%s) - 11 * 86400))000,message=']E: ERROR: replication slot \"dms_slot\" does not exist'"
    dms --stop | grep ': stopped'
    echo 'not authorized to perform: kinesis:PutRecords' >"$work/dms-failure"
    refused dms >"$work/failed" 2>&1
    cat "$work/failed"
    grep 'is failed: not authorized to perform: kinesis:PutRecords Stop Reason FATAL_ERROR. Its slot keeps the WAL' "$work/failed"
    refused grep 'does not exist\|reload-target' "$work/failed"
}
dms_resumes() {
    dms >"$work/resumed" 2>&1
    grep ': running' "$work/resumed"
    grep resume-processing "$work/resumed"
}
relays_exclude_each_other() {
    refused walrelay 2>&1 | grep 'the DMS task is running, and both relays at once send every event twice'
    refused osls remove 2>&1 | grep "To remove both: make remove STAGE=$stage REGION=$region"
}
# switched checks that events that the stand-in has read do not come again, and that the others
# come.
switched() {
    local id
    sql "SELECT pg_drop_replication_slot('outbox_relay');"
    car
    cp "$work/car" "$work/car.unread"
    walrelay --from dms >"$work/switch" 2>&1 || { cat "$work/switch"; return 1; }
    grep 'copy-slot: made slot outbox_relay from dms_slot' "$work/switch"
    car
    event_arrives
    for id in "$(cat "$work/car.read")" "$(cat "$work/car.unread")" "$(cat "$work/car")"; do
        [[ $(aws logs filter-log-events --log-group-name "$(output EventBusLogGroupName)" --query 'events[].[message]' | grep -c "$id") == 1 ]] ||
            { echo "car $id is not once on the bus"; cat "$work/switch"; return 1; }
    done
}
remove() { PATH=$work/bin:$PATH scripts/remove.sh "$stage" "$region"; }
nothing_is_left() {
    inventory | sort >"$work/after"
    # The account-wide roles stay on purpose.
    diff "$work/before" <(grep -v 'list_roles \(dms-vpc-role\|dms-cloudwatch-logs-role\|AWSServiceRoleForECS\)$' "$work/after")
}

# prod is private, so walrelay has no public address, and nobody removes it by mistake. The tests of
# DMS's script check what DMS gets there.
# prod_is_refused plays a database that a failed deployment has left, and a log group that a removed
# function has made again.
prod_is_refused() {
    stage=prod stack=rds-outbox-demo-prod
    local left=$stack-database-left group=/aws/lambda/$stack-createCar
    aws rds create-db-instance --db-instance-identifier "$left" --engine postgres --db-instance-class db.t4g.medium --allocated-storage 20 \
        --master-username dbadmin --master-user-password "$password"
    refused scripts/deploy.sh "$stage" "$region" 2>&1 | tee /dev/stderr | grep "its database is there and bills: $left"
    aws rds delete-db-instance --skip-final-snapshot --db-instance-identifier "$left"
    aws logs create-log-group --log-group-name "$group"
    refused scripts/deploy.sh "$stage" "$region" >"$work/refused" 2>&1
    cat "$work/refused"
    grep 'CloudFormation refused beforehand' "$work/refused"
    grep "with identifier '$group' already exists" "$work/refused"
    aws logs delete-log-group --log-group-name "$group"
}
protected() { aws rds describe-db-instances --query 'DBInstances[].DeletionProtection' | grep -x True; }
prod() {
    stage=prod stack=rds-outbox-demo-prod
    deploy
    protected
    # An unchanged deployment is skipped, and says no more of what was refused before.
    scripts/deploy.sh "$stage" "$region" >"$work/again" 2>&1
    cat "$work/again"
    grep 'No changes to deploy' "$work/again"
    protected
    # The server still has dev's rows, and its slot. Without the slot walrelay loads them, so that prod's bus has them, too.
    sql "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'outbox_relay';"
    walrelay | grep 'one streams'
    aws ec2 describe-vpc-endpoints --query "VpcEndpoints[?State!='deleted'].[ServiceName]" | sed 's/.*us-east-1.//' | sort | paste -sd ' ' |
        grep -x 'ecr.api ecr.dkr kinesis-streams logs s3 secretsmanager sqs'
    eventually audited
    outboxctl redrive list | grep '0 messages'
    walrelay --stop
    refused remove 2>&1 | grep "stack $stack is protected; nothing was removed"
}

step "emulated AWS answers" emulator_answers
inventory | sort >"$work/before"
sql 'CREATE ROLE rds_replication NOLOGIN;' >/dev/null # as on RDS
step "osls deploys" deploy
step "every output is there" outputs_are_there
step "the custom resource ran the migrations" migrated
step "② createCar makes a car" car
step "③④ walrelay is deployed from a pushed image, and streams" walrelay_runs
step "⑥ the event is in the bus's log group" event_arrives
step "⑥ carStats has counted the car" event_is_counted
step "outboxctl audits beside the database" audited
step "an unchanged image and an unchanged walrelay are skipped" walrelay_again
step "③④ a new version of walrelay takes over under load, and every event is on the bus, in order" rolled
step "②–⑥ the canary's beat is on the bus" canary_beats
step "③ walrelay goes on after its password was rotated" rotated
step "② retention is off until it is switched on" retention_is_off
step "a broken migration fails the deployment with its SQL error" broken_migration
step "deploying goes on after it, and a new migration runs" new_migration
step "a slot stands in for that of DMS" stand_in
step "walrelay keeps DMS away until it is stopped" walrelay_stops
step "the DMS script deploys, and the task runs" dms_runs
step "the task stops, fails for a reason of today, and keeps its slot" dms_fails_today
step "the task resumes" dms_resumes
step "a running DMS keeps walrelay and osls remove away" relays_exclude_each_other
step "walrelay goes on where DMS stands, and sends nothing twice" switched
step "remove takes all three stacks" remove
step "nothing is left" nothing_is_left
step "prod is refused beside a database that was left, and while the name of a log group is taken" prod_is_refused
step "prod deploys, with a walrelay of its own, is protected, and unchanged is skipped" prod
echo "rehearse: pass: wiring, protocols and outputs hold (IAM, rollback and timing are AWS's own: lab/rehearsal/README.md)"
