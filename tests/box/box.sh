#!/usr/bin/env bash
# The package on a whole machine: a Debian booted in a folder, the package installed in it with apt, Apache Kafka beside
# it, and what happens to a box in its life. After each blow the journal is compared with the broker, record by record.
#
#   box.sh short PACKAGE.deb    install, configure, the guide, a pulled plug, purge
#   box.sh full PACKAGE.deb     everything
#
# BOX_SUITE is Debian's release: bookworm (12, if it is not set) or trixie (13). Needs root and what `tests/tools.sh box`
# installs. Prints a transcript, and keeps it in target/box/transcript.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target/box"
target=$(cd "$target" && pwd)
suite=${BOX_SUITE:-bookworm}
base=$target/box/$suite
length=$1 package=$(realpath "$2")
name=crm-box-$$
work=$(mktemp -d "$target/box/run.XXXXXX")
port=19092
started=$SECONDS

. "$here/machine.sh"
. "$here/records.sh"
. "$here/life.sh"

clean_up() {
    local code=$?
    trap - EXIT
    trap '' INT TERM PIPE
    [ "$code" = 0 ] || echo "FAILED after: ${BASH_COMMAND:-}"
    if [ "$code" != 0 ] && [ -n "$leader" ]; then
        echo "--- the service's log"
        in_box journalctl --no-pager -n 40 -o cat -u crm-events-sink || true
    fi
    as_box "$here/../kafka/kafka.sh" stop "$work/kafka" 2>/dev/null || true
    remove_machine
    rm -rf "$work"
    exit "$code"
}

fail() { echo "FAILED: $*"; exit 1; }

chapter() { printf '\n== %s (%s s)\n' "$*" $((SECONDS - started)); }

# Runs a line in the machine as its operator would, and shows it with its answer; the answer is in $out as well.
show() {
    local code=0
    echo "box# $1"
    out=$(in_box bash -o pipefail -c "$1" 2>&1) || code=$?
    printf '%s\n' "${out:-(no output)}" | cut -c1-400 | head -n "${2:-12}"
    return $code
}

holds() { grep -qE -- "$1" <<<"$out" || fail "expected: $1"; }

# Waits up to SECONDS for a line to succeed in the machine.
within() { # SECONDS LINE
    local deadline=$((SECONDS + $1))
    until out=$(in_box bash -o pipefail -c "$2" 2>&1); do
        [ $SECONDS -lt $deadline ] || { printf '%s\n' "$out"; fail "not within $1 s: $2"; }
        sleep 0.1
    done
}

[ "$(id -u)" = 0 ] || fail "a machine is booted by root only"
trap clean_up EXIT
trap 'exit 130' INT TERM
exec > >(trap '' INT TERM; exec tee "$target/box/transcript.txt") 2>&1
"$here/../kafka/kafka.sh" fetch
make_machine
as_box "$here/../kafka/kafka.sh" start "$work/kafka" "$port:19093" &
kafka_starts=$!
boot
wait "$kafka_starts"
case "$length" in
    short) life_in_short ;;
    full) life ;;
    *) fail "give short or full" ;;
esac
chapter "All of it held"
