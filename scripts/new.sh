#!/bin/sh
# Copies this tree for a service of your own, under another Go module path and another service name. The tree itself does not change.
#
# The module path and the service name are both rds-outbox-demo here, so each place decides which of the two it becomes.
#   the module path   the module line of go.mod and of the go.mod that a test writes, the imports of Go files and of the docs' Go
#                     code (a quote, the name, a slash), the local prefix of the imports in .golangci.yml
#   the service name  everywhere else, which is the stacks, the stream, the bus, the log groups, the queues and the functions, the namespace
#                     of the metrics, the packages of npm, the title of the README, and what the tests and the docs say of them
# With ENTITY the copy has that entity in place of the car, in every text and every file name. These
# are car, cars, Car, Cars, CARS, and the packages carapi and carstats, where they are words or
# parts of a name in camel case (carId, CarCreated, car_stats). The members of a car, such as make
# and model, stay. docs/make-it-yours.md says which files have them. Lock files and certificates
# stay, because Base64 may have such a word.
# These files keep both names. The roles, users and name of the database never had that of the service.
#   LICENSE           whose copyright line belongs to every copy
#   CHANGELOG.md      which is about the releases of rds-outbox-demo
#   scripts/new.sh    which names what it copies
# What git ignores and git's own data are not copied.
set -u
cd "$(dirname "$0")/.." || exit 1
from=rds-outbox-demo

die() {
    echo "new: $*" >&2
    exit 1
}

# matches succeeds if all of $1 matches the extended regular expression $2. It refuses a second line, which grep -x would look past.
matches() { [ "$(printf '%s\n' "$1" | wc -l)" -eq 1 ] && printf '%s\n' "$1" | grep -Eqx "$2"; }

case $# in [2-5]) ;; *) die 'usage: scripts/new.sh MODULE SERVICE [DIR [ENTITY [ENTITIES]]]' ;; esac
module=$1 service=$2 dir=${3:-../$2} entity=${4:-} entities=${5:-${4:-}s}

grep -qx "module $from" go.mod || die "this tree is a copy of $from already: copy the original"
[ -n "$module" ] || die 'MODULE= is missing: the Go module path, such as example.com/acme/orders'
# A path whose first element has no dot belongs to Go's own packages.
matches "$module" '[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9_~-]+(\.[A-Za-z0-9_~-]+)*)+' ||
    die "MODULE '$module': use a Go module path of a domain and a path, such as example.com/acme/orders"
[ -n "$service" ] || die 'SERVICE= is missing: the name of the service, such as orders'
# A DMS identifier holds 31 characters, and no two hyphens in a row. The stage and its hyphen take 16 of them (scripts/aws.sh).
{ matches "$service" '[a-z][a-z0-9]*(-[a-z0-9]+)*' && [ ${#service} -le 15 ]; } ||
    die "SERVICE '$service': use up to 15 lower-case letters, digits and single hyphens, beginning with a letter, such as orders"
if [ -n "$entity" ]; then
    for word in "$entity" "$entities"; do
        # outbox_ORDERstats_user is a name in the database, and the queue and the alarms have the entity in theirs.
        { matches "$word" '[a-z]+' && [ ${#word} -le 15 ]; } || die "ENTITY '$word': use up to 15 lower-case letters of one noun, such as order"
    done
    [ "$entity" != "$entities" ] || die "ENTITY '$entity': name its plural, too, with ENTITIES="
fi
if [ -e "$dir" ] || [ -h "$dir" ]; then die "$dir is there already: nothing was changed"; fi
parent=$(cd "$(dirname "$dir")" 2>/dev/null && pwd -P) || die "$dir: there is no folder $(dirname "$dir") to make it in"
case $parent/ in
"$(pwd -P)"/*) die "$dir is inside this tree: name a folder outside it" ;;
esac
command -v gofmt >/dev/null || die 'gofmt is not on PATH: it comes with Go, https://go.dev/dl'

# The copy is made under another name, so that a failure leaves nothing that looks whole.
work=$(mktemp -d "$parent/.new-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/copy" || exit 1

find . \( -name .git -o -name node_modules -o -name .data -o -name .cache -o -name bin -o -name .serverless -o -path '*/testdata/rapid' \) \
    -prune -o -type f -print >"$work/files" || exit 1
tar -cf "$work/tar" -T "$work/files" || exit 1
tar -xf "$work/tar" -C "$work/copy" || exit 1

# @MODULE@ stands for the module path for a while, because that may contain the old name.
sed 's|^\./||; /^LICENSE$/d; /^CHANGELOG\.md$/d; /^scripts\/new\.sh$/d' "$work/files" >"$work/renamed"
cd "$work/copy" || exit 1
while IFS= read -r file; do
    grep -qF "$from" "$file" || continue
    case $file in
    .golangci.yml) own="s|\[$from\]|[@MODULE@]|" ;;
    *) own="s|\"$from/|\"@MODULE@/|g; s|module $from|module @MODULE@|g" ;;
    esac
    # cat keeps the file's mode.
    sed -e "$own" -e "s|$from|$service|g" -e "s|@MODULE@|$module|g" "$file" >"$work/text" || exit 1
    cat "$work/text" >"$file" || exit 1
done <"$work/renamed"

# replaced prints sed's rules for one spelling of the noun. The characters before and after it are
# not letters that would make it another word.
replaced() { # WORD BY BEFORE AFTER
    printf 's/(%s)%s(%s)/\\1%s\\2/\nt again\n' "$3" "$1" "$4" "$2"
}
if [ -n "$entity" ]; then
    first() { printf %s "$1" | cut -c1 | tr '[:lower:]' '[:upper:]'; printf %s "$1" | cut -c2-; }
    upper() { printf %s "$1" | tr '[:lower:]' '[:upper:]'; }
    {
        echo "s/carapi/${entity}api/g; s/carstats/${entity}stats/g; s/CARAPI/$(upper "$entity")API/g; s/CARSTATS/$(upper "$entity")STATS/g"
        case $entity in [aeiou]*) printf '%s\n' 's/(^|[^A-Za-z])([Aa]) (car[^a-z])/\1\2n \3/g' ;; esac
        echo :again
        for plural in s ''; do
            if [ "$plural" ]; then noun=$entities; else noun=$entity; fi
            replaced "Car$plural" "$(first "$noun" | tr -d '\n')" '' '$|[^a-z]'
            replaced "car$plural" "$noun" '^|[^A-Za-z]' '$|[^a-z]'
            replaced "CAR$(upper "$plural")" "$(upper "$noun")" '^|[^A-Za-z]' '$|[^A-Za-z]'
        done
    } >"$work/rules"
    grep -v -e '^go\.sum$' -e 'package-lock\.json$' -e '\.pem$' "$work/renamed" >"$work/texts"
    while IFS= read -r file; do
        if grep -Iqi car "$file"; then
            sed -E -f "$work/rules" "$file" >"$work/text" || exit 1
            cat "$work/text" >"$file" || exit 1
        fi
    done <"$work/texts"
    # The longest paths first, so that a folder is renamed after what is in it.
    find . -depth -iname '*car*' -print >"$work/named"
    while IFS= read -r path; do
        name=$(basename "$path" | sed -E -f "$work/rules")
        [ "$name" = "$(basename "$path")" ] || mv "$path" "$(dirname "$path")/$name" || exit 1
    done <"$work/named"
fi
# Names of another length leave columns that gofmt would move.
gofmt -w . || exit 1
cd "$parent" || exit 1

mv "$work/copy" "$parent/$(basename "$dir")" || die "$dir could not be made"
echo "new: $parent/$(basename "$dir") is service $service in module $module${entity:+, and $entities take the place of cars}"
