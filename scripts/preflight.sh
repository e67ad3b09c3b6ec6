# shellcheck shell=bash
# Sourced by deploy.sh and deploy-dms.sh, after aws.sh. It checks first what would otherwise fail
# after half an hour, when a database already exists and bills.

# shellcheck disable=SC2154 # aws.sh sets stage, region and main_stack

# setting PATH prints a value of the compiled serverless.yml, or null.
setting() { node_modules/.bin/osls print --stage "$stage" --region "$region" --path "$1" --format text; }

check_region() {
    if lacks roots; then
        die "region $region: internal/rdsdb/rds-ca-bundle.pem has no certificate for databases there, so no function could connect. Take another region, or add the region's certificates from https://truststore.pki.rds.amazonaws.com and take the word roots out of scripts/regions.txt"
    fi
    if lacks archive; then die "region $region has no EventBridge archives (AWS::Events::Archive): take another region"; fi
    if lacks dms; then say "region $region has no AWS DMS: the relay is walrelay there, make walrelay STAGE=$stage REGION=$region"; fi
}

# check_leftover finds what a first deployment that failed has left. The name of a database is random, so the next try would make a second
# one beside it.
check_leftover() {
    local status found
    status=$(stack_status "$main_stack")
    case $status in
    absent) ;;
    ROLLBACK_FAILED | DELETE_FAILED | ROLLBACK_COMPLETE | CREATE_FAILED)
        die "stack $main_stack is $status ($(stack_failure "$main_stack")): remove what is left of it first, make remove STAGE=$stage REGION=$region. See docs/deploy.md#when-the-first-deployment-failed" ;;
    *) return 0 ;;
    esac
    found=$(try rds describe-db-instances --query "DBInstances[?starts_with(DBInstanceIdentifier, '$main_stack-')].[DBInstanceIdentifier]") || return 0
    [[ -n $found && $found != None ]] || return 0
    die "there is no stack $main_stack, but its database is there and bills: $(paste -sd ' ' - <<<"$found"). Keep its data or delete it first. See docs/deploy.md#when-the-first-deployment-failed"
}

# check_concurrency checks Lambda's rule that 100 must stay unreserved for all other functions. New
# accounts may have 10 in all.
check_concurrency() {
    local reserved limit
    reserved=$(setting functions.createCar.reservedConcurrency) || die "osls cannot read serverless.yml, see above"
    [[ $reserved =~ ^[0-9]+$ ]] || return 0
    limit=$(try lambda get-account-settings --query AccountLimit.ConcurrentExecutions) || return 0
    ((limit >= reserved + 100)) || die "this account may run $limit Lambda environments in $region, and apiConcurrency reserves $reserved of the $((reserved + 100)) that it needs: ask for a higher quota of concurrent executions (Service Quotas, Lambda), or lower apiConcurrency in serverless.yml. Nothing was deployed"
}

# check_plan refuses prod for an account on the Free plan, because RDS refuses what prod needs there
# (FreeTierRestrictionError).
check_plan() {
    local plan
    plan=$(try freetier get-account-plan-state --query accountPlanType) || return 0
    [[ $plan == FREE ]] || return 0
    [[ $stage != prod ]] || die "this account is on the Free plan, which has neither the database class nor the backups of stage prod: upgrade the account's plan first. Nothing was deployed"
    say "this account is on the Free plan: RDS may refuse databaseBackupDays or databaseClass of stage $stage (FreeTierRestrictionError)"
}

# dms_default NAME prints a parameter's default in dms-setup.yaml.
dms_default() { awk -v name="  $1:" '$0 == name { inside = 1 } inside && $1 == "Default:" { print $2; exit }' dms-setup.yaml; }

# not_orderable CLASS VERSION prints why a DMS instance cannot be ordered here, or nothing. AWS retires engines and classes.
not_orderable() {
    local versions
    versions=$(try dms describe-orderable-replication-instances \
        --query "OrderableReplicationInstances[?ReplicationInstanceClass=='$1'].[EngineVersion]") || return 0
    grep -qx "$2" <<<"$versions" ||
        echo "DMS $2 on $1 cannot be ordered in $region any more. Versions of $1 there: $(sort -u <<<"$versions" | paste -sd ' ' -). Give EngineVersion= or ReplicationInstanceClass="
}

# check_dms only warns, because walrelay needs no DMS.
check_dms() {
    local problem
    ! lacks dms || return 0
    problem=$(not_orderable "$(dms_default ReplicationInstanceClass)" "$(dms_default EngineVersion)")
    [[ -z $problem ]] || say "$problem, if DMS is to be the relay: scripts/deploy-dms.sh $stage $region EngineVersion=<version>"
}

preflight() {
    check_region
    check_leftover
    check_concurrency
    check_plan
    check_dms
}
