#!/usr/bin/env bash
# Prints the URL of a stage's API.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/aws.sh
. scripts/aws.sh

(($# == 2)) || die "usage: scripts/url.sh <stage> <region>"
stage_and_region "$@"
read_outputs "$main_stack" ApiEndpoint
output ApiEndpoint
