# shellcheck shell=bash
# Sourced after aws.sh by the scripts that deploy a relay's stack beside the main stack.

# find_subnets VPC sets subnets, one in each of two zones, and network, which is public if both have
# a route to an internet gateway.
find_subnets() {
    local vpc=$1 answer public
    answer=$(ask ec2 describe-subnets --filters "Name=vpc-id,Values=$vpc" --query 'Subnets[].[AvailabilityZone,SubnetId]')
    # Sorted, so that every run finds the same two.
    read -r -d '' -a subnets < <(sort <<<"$answer" | awk 'NF == 2 && !seen[$1]++ { print $2 }' | head -n 2) || true
    ((${#subnets[@]} == 2)) || die "VPC $vpc has subnets in ${#subnets[@]} zone(s), and a relay needs two: add one in another zone"
    public=$(ask ec2 describe-route-tables --filters "Name=vpc-id,Values=$vpc" \
        --query "RouteTables[?Routes[?starts_with(GatewayId || '-', 'igw-')]].Associations[].[SubnetId]")
    # shellcheck disable=SC2034 # used by those who source this
    network=public
    for answer in "${subnets[@]}"; do
        # shellcheck disable=SC2034
        grep -qx "$answer" <<<"$public" || network=private
    done
}

# make_change_set STACK TEMPLATE Parameter=Value... sets verb, which is create or update, and
# change_set, which is empty when nothing changes. It executes nothing, so that the caller can
# prepare for a change, and only for a change.
make_change_set() {
    local stack=$1 template=$2 status answer
    shift 2
    verb=update
    status=$(stack_status "$stack")
    case $status in
    REVIEW_IN_PROGRESS) verb=create ;;
    *_IN_PROGRESS) die "stack $stack is $status: run this again when that is over" ;;
    ROLLBACK_COMPLETE) # the first deployment failed and nothing is left but the name
        ask cloudformation delete-stack --stack-name "$stack" >/dev/null
        ask cloudformation wait stack-delete-complete --stack-name "$stack" >/dev/null
        verb=create
        ;;
    absent) verb=create ;;
    *ROLLBACK_FAILED | *DELETE_FAILED | CREATE_FAILED)
        die "stack $stack is $status ($(stack_failure "$stack")): repair or delete it in the CloudFormation console, then run this again" ;;
    esac
    say "$verb of stack $stack"
    answer=$(ask cloudformation deploy --stack-name "$stack" --template-file "$template" --capabilities CAPABILITY_IAM \
        --no-execute-changeset --no-fail-on-empty-changeset --parameter-overrides "$@")
    change_set=$(grep -o 'arn:[^ ]*:changeSet/[^ ]*' <<<"$answer" || true)
    [[ -n $change_set ]] || say "stack $stack is up to date"
}

# execute_change_set STACK [NOTE] executes what make_change_set has made. It says the note when that fails.
execute_change_set() {
    ask cloudformation execute-change-set --change-set-name "$change_set" >/dev/null
    cli cloudformation wait "stack-$verb-complete" --stack-name "$1" >/dev/null 2>&1 && return
    [[ -z ${2:-} ]] || say "$2"
    die "stack $1 is $(stack_status "$1"): $(stack_failure "$1"). When the cause is gone, run this again"
}

# walrelay_count prints the service's desired count, 0 without a service.
walrelay_count() {
    local answer
    # shellcheck disable=SC2154 # aws.sh sets it
    answer=$(stack_status "$walrelay_stack")
    if [[ $answer == absent ]]; then
        echo 0
        return
    fi
    if answer=$(cli ecs describe-services --cluster "$walrelay_stack" --services walrelay --query 'services[0].desiredCount' 2>&1); then
        [[ $answer =~ ^[0-9]+$ ]] || answer=0 # None, because the stack has no service yet
        echo "$answer"
    elif [[ $answer == *ClusterNotFound* ]]; then
        echo 0
    else
        die "$(explain 'ecs describe-services' "$answer")"
    fi
}
