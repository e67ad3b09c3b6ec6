# shellcheck shell=bash
# Sourced by the scripts that talk to AWS. It checks stage and region, calls the AWS CLI, and says
# in one line what went wrong. Sets stage, region, main_stack, dms_stack and walrelay_stack.

program=$(basename "$0" .sh)
export AWS_PAGER='' # version 2 of the CLI would wait in a pager

die() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# stage_and_region STAGE REGION checks both, and that the AWS CLI has credentials.
stage_and_region() {
    # No hyphen, because the resources of stage "a" would look like those of "a-b". At most 15,
    # because a DMS identifier holds 31 characters.
    [[ $1 =~ ^[a-z][a-z0-9]{0,14}$ ]] || die "stage '$1': use up to 15 lower-case letters and digits, such as dev"
    [[ $2 =~ ^[a-z]{2}(-[a-z]+)+-[0-9]$ ]] || die "region '$2': not the name of an AWS region, such as us-east-1"
    stage=$1 region=$2
    main_stack=rds-outbox-demo-$stage
    # shellcheck disable=SC2034 # used by those who source this
    dms_stack=$main_stack-dms walrelay_stack=$main_stack-walrelay
    command -v aws >/dev/null || die "the AWS CLI (aws) is not installed"
    ask sts get-caller-identity >/dev/null
}

# cli is the AWS CLI with text answers. Version 1 ignores AWS_ENDPOINT_URL for rds and sqs, and would go to real AWS.
cli() { command aws "$@" --region "$region" --output text ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"}; }

# ask calls AWS and prints the answer. An error ends the script with one line.
ask() {
    local errors
    { errors=$(cli "$@" 2>&1 >&3 3>&-); } 3>&1 || die "$(explain "$1 $2" "$errors")"
}

# try asks a question that may stay open, because these credentials may not ask it, or the CLI is
# too old. It then says so and fails.
try() {
    local errors
    # One attempt. A question that may stay open is not worth the CLI's four attempts, with their
    # pauses.
    { errors=$(AWS_MAX_ATTEMPTS=1 cli "$@" 2>&1 >&3 3>&-); } 3>&1 && return
    say "not checked beforehand: $(explain "$1 $2" "$errors")"
    return 1
}

# explain CALL ERRORS turns what the CLI printed into one line that says what to do.
explain() {
    local message
    message=$(grep -v '^[[:space:]]*$' <<<"$2" | tail -n 1 || true)
    case $message in
    *'Unable to locate credentials'* | *'config profile'*)
        message='no AWS credentials: set AWS_PROFILE, or run aws configure' ;;
    *ExpiredToken* | *InvalidClientTokenId* | *UnrecognizedClient* | *SignatureDoesNotMatch* | *AuthFailure* | *SSO* | *'Token has expired'*)
        message="AWS does not accept the credentials: log in again ($message)" ;;
    *'Could not connect to the endpoint'* | *'Invalid endpoint'*)
        message="no answer from AWS in $region: is the region's name right, and this machine online?" ;;
    *) message="aws $1: $message" ;;
    esac
    printf '%s\n' "$message"
}

# milliseconds TIME prints a time of an answer in milliseconds since 1970, or NaN. Version 1 of the CLI prints seconds since 1970,
# version 2 an ISO date.
milliseconds() { node -p 'const at = process.argv[1]; Math.floor(isNaN(at) ? Date.parse(at) : at * 1000)' "$1"; }

# when TIME prints a time of an answer for people.
when() { node -p 'const at = new Date(+process.argv[1]); isNaN(at) ? "at an unknown time" : at.toISOString()' "$(milliseconds "$1")"; }

# lacks THING reports whether the region lacks it, according to scripts/regions.txt.
lacks() { awk -v region="$region" -v thing="$1" '$1 == region { for (i = 2; i <= NF; i++) if ($i == thing) found = 1 } END { exit !found }' scripts/regions.txt; }

# stack_status STACK prints its status, or "absent".
stack_status() {
    local answer
    if answer=$(cli cloudformation describe-stacks --stack-name "$1" --query 'Stacks[0].StackStatus' 2>&1); then
        tail -n 1 <<<"$answer"
    elif [[ $answer == *'does not exist'* ]]; then
        echo absent
    else
        die "$(explain 'cloudformation describe-stacks' "$answer")"
    fi
}

# read_outputs STACK NAME... keeps the stack's outputs for `output NAME`, or names every one that is missing.
read_outputs() {
    local stack=$1 status name missing=() target=deploy
    shift
    [[ $stack == "$main_stack" ]] || target=${stack##*-}
    status=$(stack_status "$stack")
    [[ $status != absent ]] ||
        die "there is no stack $stack in $region: is it another stage or region? To make it: make $target STAGE=$stage REGION=$region"
    outputs=$(ask cloudformation describe-stacks --stack-name "$stack" --query 'Stacks[0].Outputs[].[OutputKey,OutputValue]')
    for name in "$@"; do
        [[ -n $(output "$name") ]] || missing+=("$name")
    done
    ((${#missing[@]} == 0)) ||
        die "stack $stack ($status) has no output ${missing[*]}: deploy it again, make $target STAGE=$stage REGION=$region"
}

# call_migrate PAYLOAD prints the answer of the main stack's migrate function. read_outputs must have read MigrateFunctionName.
call_migrate() {
    local folder failed
    folder=$(mktemp -d)
    printf '%s' "$1" >"$folder/event"
    # fileb, because version 2 of the CLI would take a plain payload for base64. No read timeout,
    # because a migration may take 15 minutes, and a second call would only wait for the first one's
    # lock.
    failed=$(ask lambda invoke --function-name "$(output MigrateFunctionName)" --payload "fileb://$folder/event" --cli-read-timeout 0 \
        --query FunctionError "$folder/answer") || { rm -rf "$folder"; exit 1; }
    answer=$(cat "$folder/answer")
    rm -rf "$folder"
    [[ $failed == None ]] || die "$answer"
    printf '%s\n' "$answer"
}

output() { awk -F '\t' -v name="$1" '$1 == name { print $2 }' <<<"$outputs"; }

# stack_failure STACK prints the first thing that failed in the stack's last change. A resource that
# was cancelled because of the failure is not the cause.
stack_failure() {
    ask cloudformation describe-stack-events --stack-name "$1" --query 'StackEvents[].[LogicalResourceId,ResourceStatus,ResourceStatusReason]' |
        awk -F '\t' -v stack="$1" '
            over { next }
            $1 == stack && $2 ~ /^(CREATE|UPDATE|DELETE)_IN_PROGRESS$/ { over = 1; next }
            $2 ~ /_FAILED$/ && $3 !~ /cancelled/ { cause = $1 ": " $3 }
            END { print cause ? cause : "no reason given" }'
}
