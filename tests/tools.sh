#!/usr/bin/env bash
# Installs what this project needs and the machine lacks, with Debian's packages, and says so.
#
#   tools.sh build   what cargo needs to build librdkafka
#   tools.sh test    that, and the tools that the tests stand on
#   tools.sh deb     what cargo needs, and what packs a program for Debian; with arm64, what builds for that as well
#   tools.sh box     what cargo needs, what packs, and what boots a whole machine with Apache Kafka beside it
#   tools.sh python  what judges the API's description and reads the archive, from PyPI into target/tools/python; exit 1
#                    with one line if that is not possible
#   tools.sh bench   what `make bench` measures beside the sink, from PyPI into target/tools/bench; in one line if not
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}
missing=()

lacks() { # COMMAND PACKAGE
    command -v "$1" >/dev/null || missing+=("$2")
}

lacks_file() { # FILE PACKAGE
    [ -e "$1" ] || missing+=("$2")
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install() {
    [ ${#missing[@]} = 0 ] && return
    echo "Installing with apt-get: ${missing[*]}"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
        echo "These packages could not be installed. As root: apt-get install ${missing[*]}" >&2
        exit 1
    }
}

# Debian's package would start a Prometheus server; only its promtool is wanted.
unpack_promtool() {
    command -v promtool >/dev/null || [ -x "$target/tools/promtool" ] && return
    echo "Unpacking promtool from Debian's package prometheus into target/tools"
    mkdir -p "$target/tools/deb"
    (cd "$target/tools/deb" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .) || {
        echo "promtool could not be fetched. As root: apt-get install prometheus" >&2
        exit 1
    }
    cp "$target/tools/deb/usr/bin/promtool" "$target/tools/promtool"
    rm -r "$target/tools/deb"
}

install_python() { # WHAT REQUIREMENTS FOLDER
    wanted=$(dirname "$0")/$2
    cmp -s "$wanted" "$target/tools/$3/installed.txt" && return
    echo "Installing $1 from PyPI into target/tools/$3"
    rm -rf "$target/tools/$3"
    python3 -m venv "$target/tools/$3" &&
        "$target/tools/$3/bin/pip" install -q --disable-pip-version-check -r "$wanted" &&
        cp "$wanted" "$target/tools/$3/installed.txt" || {
        echo "$1 could not be installed from PyPI (the lines above say why)" >&2
        exit 1
    }
}

command -v cargo >/dev/null || { echo "Rust is missing: install it with rustup, then run this again" >&2; exit 1; }
lacks make make
lacks gcc gcc
lacks g++ g++
lacks pkg-config pkg-config
lacks_file /usr/include/openssl/ssl.h libssl-dev
lacks_file /usr/include/zlib.h zlib1g-dev
case "${1:-}" in
    build) install ;;
    test)
        lacks curl curl
        python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
        lacks kcat kafkacat
        lacks sqlite3 sqlite3
        lacks openssl openssl
        lacks strace strace
        lacks column bsdextrautils
        lacks java openjdk-17-jre-headless
        lacks mvn maven
        lacks fiu-ctrl fiu-utils
        lacks zstd zstd
        lacks systemd-analyze systemd
        install
        unpack_promtool
        ;;
    deb)
        lacks dpkg-shlibdeps dpkg-dev
        lacks lintian lintian
        if [ "${2:-}" = arm64 ]; then
            lacks aarch64-linux-gnu-g++ crossbuild-essential-arm64
            lacks_file /usr/include/aarch64-linux-gnu/openssl/opensslconf.h libssl-dev:arm64
            lacks_file /usr/lib/aarch64-linux-gnu/libz.so zlib1g-dev:arm64
            as_root dpkg --add-architecture arm64
            rustup target add aarch64-unknown-linux-gnu
        fi
        install
        ;;
    box)
        lacks dpkg-shlibdeps dpkg-dev
        lacks debootstrap debootstrap
        lacks systemd-nspawn systemd-container
        lacks nsenter util-linux
        lacks ip iproute2
        lacks mkfs.ext4 e2fsprogs
        lacks kcat kafkacat
        lacks java openjdk-17-jre-headless
        lacks mvn maven
        install
        ;;
    python) install_python 'schemathesis and DuckDB' requirements.txt python ;;
    bench) install_python confluent-kafka requirements-bench.txt bench ;;
    *) echo "give build, test, deb, box, python or bench" >&2; exit 1 ;;
esac
