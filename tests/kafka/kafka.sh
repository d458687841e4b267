#!/usr/bin/env bash
# Apache Kafka (KRaft) on loopback, for tests. The jars come from Maven Central once, into target/kafka/libs.
#
#   kafka.sh fetch                             get the jars; exit 1 with one line if that is not possible
#   kafka.sh start DIR PORT:CPORT [PORT:CPORT …]  format and start one node for each pair of free ports (broker,
#                                              controller) with its files in DIR; returns when all answer
#   kafka.sh stop DIR [NODE]                   end all nodes of DIR, or the one with this number (from 1)
#   kafka.sh restart DIR NODE                  start a stopped node again
#
# KAFKA_HEAP is how much memory Java may take for a node's objects: 512m unless it says otherwise.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
libs=${CARGO_TARGET_DIR:-$here/../../target}/kafka/libs

fail() { echo "kafka.sh: $*" >&2; exit 1; }

fetch() {
    [ -f "$libs/.complete" ] && return
    command -v java >/dev/null || fail "Apache Kafka needs Java 17: apt-get install openjdk-17-jre-headless"
    command -v mvn >/dev/null || fail "Apache Kafka is fetched with Maven: apt-get install maven"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs" >&2 ||
        fail "Maven could not fetch Apache Kafka (the lines above say why)"
    touch "$libs/.complete"
}

configure() { # DIR NODE PORT CPORT VOTERS REPLICAS
    mkdir -p "$1/node-$2"
    cat >"$1/node-$2/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$2
controller.quorum.voters=$5
listeners=PLAINTEXT://127.0.0.1:$3,CONTROLLER://127.0.0.1:$4
advertised.listeners=PLAINTEXT://127.0.0.1:$3
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$1/node-$2/log
num.partitions=3
default.replication.factor=$6
offsets.topic.num.partitions=3
offsets.topic.replication.factor=$6
transaction.state.log.replication.factor=$6
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
leader.imbalance.check.interval.seconds=2
PROPERTIES
}

launch() { # DIR NODE
    java -Xmx"${KAFKA_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$libs/*" kafka.Kafka "$1/node-$2/server.properties" \
        >"$1/node-$2/out" 2>&1 </dev/null &
    echo $! >"$1/node-$2/pid"
}

await() { # DIR NODE PORT
    for _ in $(seq 600); do
        kill -0 "$(cat "$1/node-$2/pid")" 2>/dev/null || { tail -n 20 "$1/node-$2/out" >&2; fail "node $2 ended"; }
        grep -q 'Kafka Server started\|started (kafka.server' "$1/node-$2/out" && return
        (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null && return
        sleep 0.1
    done
    fail "node $2 did not start within 60 s; see $1/node-$2/out"
}

start() { # DIR PORT:CPORT …
    local dir=$1 voters='' node=0 pair
    shift
    for pair in "$@"; do node=$((node + 1)); voters+=${voters:+,}$node@127.0.0.1:${pair#*:}; done
    node=0
    for pair in "$@"; do
        node=$((node + 1))
        configure "$dir" $node "${pair%:*}" "${pair#*:}" "$voters" $#
        java -XX:TieredStopAtLevel=1 -cp "$libs/*" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ \
            -c "$dir/node-$node/server.properties" >"$dir/node-$node/out" 2>&1 ||
            { cat "$dir/node-$node/out" >&2; fail "node $node could not be formatted"; }
        launch "$dir" $node
    done
    node=0
    for pair in "$@"; do node=$((node + 1)); await "$dir" $node "${pair%:*}"; done
}

stop() { # DIR [NODE]
    local file pid
    for file in "$1"/node-${2:-*}/pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        kill -9 "$pid" 2>/dev/null || true
        rm -f "$file"
    done
}

case "${1:-}" in
    fetch) fetch ;;
    start) fetch; shift; start "$@" ;;
    stop) shift; stop "$@" ;;
    restart) launch "$2" "$3" ;;
    *) fail "give fetch, start, stop or restart; the head of this file says more" ;;
esac
