#!/usr/bin/env bash
# Brings the database to the schema of sql/migrations by hand, from a machine that can reach it. A deployment does the same by
# itself.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

usage='usage: scripts/setup-db-schema.sh <DatabaseEndpoint> <DatabaseSecretArn> (both are outputs of the main stack)'
(($# == 2)) || die "$usage"
[[ $1 =~ ^([A-Za-z0-9.-]+)(:([0-9]+))?$ ]] || die "'$1' is not a host or host:port"$'\n'"$usage"
host=${BASH_REMATCH[1]} port=${BASH_REMATCH[3]:-5432}
[[ $2 =~ ^arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):[0-9]+:secret:.+$ ]] || die "'$2' is not the ARN of a secret"$'\n'"$usage"
region=${BASH_REMATCH[1]}
[[ -x bin/migrate ]] || die "bin/migrate is not built: run make bin/migrate"
command -v node >/dev/null || die "node is not installed"

secret=$(ask secretsmanager get-secret-value --secret-id "$2" --query SecretString)
# Everybody on this machine can read arguments, but only its owner the environment.
field() {
    node -e 'process.stdout.write(String(JSON.parse(require("fs").readFileSync(0, "utf8"))[process.argv[1]] ?? ""))' "$1" <<<"$secret" 2>/dev/null ||
        die "the secret is not JSON with username and password"
}
PGUSER=$(field username) PGPASSWORD=$(field password)
[[ -n $PGUSER && -n $PGPASSWORD ]] || die "the secret has no username or no password"
export PGUSER PGPASSWORD
# verify-full, so that only Amazon's certificate for this very name gets the password.
DATABASE_URL="postgres://$host:$port/outboxdb?sslmode=verify-full&sslrootcert=internal/rdsdb/rds-ca-bundle.pem" exec bin/migrate up
