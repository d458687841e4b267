# What is sent to Kafka, and whether the journal has each of it once. Sourced by box.sh.

leads=apexflow.leads.created
jobs=apexflow.jobs.created

# COUNT events to TOPIC, from number FIRST; at RATE a second, or all at once.
produce() { # TOPIC FIRST COUNT [RATE]
    local number
    for ((number = $2; number < $2 + $3; number++)); do
        printf 'acme:lead:%s|{"tenant_id":"acme","event_type":"lead.created","published_at":"2025-11-03T20:03:58Z","id":%s,"name":"Lead %s"}\n' \
            "$number" "$number" "$number"
        [ -z "${4:-}" ] || ((number % ($4 / 10) != 0)) || sleep 0.1
    done | as_box kcat -b "localhost:$port" -P -t "$1" -K '|'
}

on_the_broker() {
    local topic
    for topic in "$leads" "$jobs"; do
        as_box kcat -b "localhost:$port" -C -t "$topic" -e -q -f '%t %p %o\n'
    done | sort
}

sql() { in_box runuser -u crm-events-sink -- crm-events-sink sql --readonly "$1"; }

in_the_journal() {
    sql "SELECT topic || ' ' || kafka_partition || ' ' || kafka_offset FROM event_journal
         UNION ALL SELECT topic || ' ' || kafka_partition || ' ' || kafka_offset FROM event_dlq" | sort
}

# Every record that the broker has is in the journal once, and nothing else is.
all_once() {
    local deadline=$((SECONDS + 60))
    on_the_broker >"$work/sent"
    until in_the_journal >"$work/kept" && [ "$(wc -l <"$work/kept")" -ge "$(wc -l <"$work/sent")" ]; do
        [ $SECONDS -lt $deadline ] || break
        sleep 0.2
    done
    diff "$work/sent" "$work/kept" | head -n 5 || true
    cmp -s "$work/sent" "$work/kept" || fail "the journal does not hold each record once"
    echo "-- the broker has $(wc -l <"$work/sent") records, the journal has each of them once"
    show "crm-events-sink check-journal | tail -n 1"
}
