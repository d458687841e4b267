#!/usr/bin/env bash
# Makes the Debian package and prints its path.
#
#   deb.sh [--profile dev] [--arch arm64] [--deb-version VERSION]
#
# --profile dev packs the program that the tests have built already: the same files, larger and slower. --arch arm64 builds
# with Debian's cross compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release arch='' version=() to=()
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile=$2 ;;
        --arch) arch=$2 ;;
        --deb-version) version=(--deb-version "$2") ;;
        *) echo "deb.sh: $1 is unknown; the head of this file says what there is" >&2; exit 1 ;;
    esac
    shift 2
done

target=(--locked --profile "$profile")
triple=$(rustc -vV | sed -n 's/^host: //p')
out=${CARGO_TARGET_DIR:-target}
case "$arch" in
    '' | amd64) ;;
    arm64)
        triple=aarch64-unknown-linux-gnu
        out=$out/$triple
        target+=(--target "$triple")
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        # librdkafka's configure knows no cross compiler but these; what runs while building is of this machine.
        tools=aarch64-linux-gnu
        export CC=$tools-gcc CXX=$tools-g++ AR=$tools-ar NM=$tools-nm RANLIB=$tools-ranlib STRIP=$tools-strip
        export HOST_CC=gcc HOST_CXX=g++ HOST_AR=ar HOST_RANLIB=ranlib
        export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
        ;;
    *) echo "deb.sh: give amd64 or arm64, not $arch" >&2; exit 1 ;;
esac
out=$out/$([ "$profile" = dev ] && echo debug || echo "$profile")

if [ "$profile" = dev ]; then
    # With what the tests build with, so that nothing is built twice; and not in the place of the real one.
    target+=(--examples)
    to=(--output "$out/package/")
else
    # As Debian hardens what is C in it: librdkafka, SQLite, zstd.
    export CFLAGS="-O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -Wformat -Werror=format-security"
    export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$HOME=/build --remap-path-prefix=$PWD=/build/crm-events-sink"
fi
cargo build --bin crm-events-sink "${target[@]}" >&2
unset CFLAGS RUSTFLAGS CC CXX AR NM RANLIB STRIP

rm -rf "$out/package"
cargo run --locked --quiet --example package -- "$out/package" "$triple" >&2
gzip -9n "$out"/package/man/* "$out/package/third-party-notices"
gzip -9nc CHANGELOG.md >"$out/package/changelog.gz"

cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb >&2
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s) \
    cargo deb --locked --no-build --quiet --strip --profile "$profile" "${version[@]}" "${to[@]}" \
    ${arch:+$([ "$arch" = arm64 ] && echo --target "$triple")}
