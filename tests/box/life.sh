# What happens to a box, in order. Sourced by box.sh.

life_in_short() {
    install_and_configure
    the_guide
    the_unit
    plug_pulled
    backed_up
    purge_keeps
    purge_takes
}

life() {
    install_and_configure
    the_guide
    the_unit
    rebooted
    plug_pulled
    backed_up
    upgraded
    downgraded
    disk_full
    removed
    purge_keeps
    purge_takes
}

install_and_configure() {
    chapter "Install, with no Kafka where the packaged settings look for it"
    cp "$package" "$root/srv/crm-events-sink.deb"
    produce "$leads" 1 40
    produce "$jobs" 1 20
    local from=${EPOCHREALTIME/./}
    show "apt-get install -y /srv/crm-events-sink.deb" 40
    show "systemctl is-active crm-events-sink; systemctl is-enabled crm-events-sink"
    within 30 "curl -s http://localhost:9106/health | grep -q localhost:9092"
    show "curl -sS -w '%{http_code}' http://localhost:9106/health"
    holds '503$'

    chapter "Configure"
    show "sed -i 's/^#brokers = .*/brokers = \"localhost:$port\"/' /etc/crm-events-sink/config.toml"
    # A name in the group: after a pulled plug the broker need not wait until the old member's session ends (45 s).
    show "sed -i 's/^#group_instance_id = .*/group_instance_id = \"branch-17\"/' /etc/crm-events-sink/config.toml"
    show "systemctl restart crm-events-sink"
    within 60 "curl -s http://localhost:9106/events/latest | grep -q received_at"
    local took=$(((${EPOCHREALTIME/./} - from) / 100000))
    echo "-- from apt install to the first event listed: $((took / 10)).$((took % 10)) s"
    all_once
    show "curl -sS -w '%{http_code}' http://localhost:9106/health"
    holds '200$'
    show "stat -c '%A %U:%G %n' /etc/crm-events-sink/* /var/lib/crm-events-sink /var/lib/crm-events-sink/journal.db"
    holds '^-rw-r----- root:crm-events-sink /etc/crm-events-sink/config.toml'
    holds '^drwxr-x--- root:crm-events-sink /etc/crm-events-sink/config.d'
    holds '^drwxr-x--- crm-events-sink:crm-events-sink /var/lib/crm-events-sink'
}

# The operators' guide, word for word but for PowerShell, which Debian has not.
the_guide() {
    chapter "The guide, with curl in the box"
    show "curl -sS http://localhost:9106/health"
    show "curl -sS http://localhost:9106/events/latest"
    holds '"topic": ?"apexflow'
    show "curl -sS http://localhost:9106/events/latest?limit=50 | grep -o received_at | wc -l"
    holds '^50$'
    show "curl -sS -X POST http://localhost:9106/replay/5"
    holds '"status": ?"replayed"'
    within 30 "curl -s http://localhost:9106/events/latest?limit=1 | grep -q '\"id\": *61,'"
    show "curl -sS http://localhost:9105/metrics | grep 'crm_events_ingested_total'"
    holds '^crm_events_ingested_total.* 21$|^crm_events_ingested_total.* 41$'
    printf 'acme:lead:0|{"tenant_id":"acme","cut short\n' | as_box kcat -b "localhost:$port" -P -t "$leads" -K '|'
    within 30 "curl -s http://localhost:9106/dlq | grep -q '\"id\"'"
    show "curl -sS http://localhost:9106/dlq"
    holds '"error"'
    for statement in \
        "SELECT id FROM event_journal WHERE received_at >= '2025-11-03 00:00:00' ORDER BY id;" \
        "SELECT id, topic, payload->>'name', received_at FROM event_journal WHERE tenant_id = 'acme' ORDER BY received_at DESC;" \
        "SELECT id, tenant_id, payload, received_at FROM event_journal WHERE topic = 'apexflow.leads.created' ORDER BY received_at DESC LIMIT 20;" \
        "SELECT * FROM event_dlq ORDER BY received_at DESC;"; do
        show "runuser -u crm-events-sink -- crm-events-sink sql \"$statement\"" 3
    done
    all_once
}

the_unit() {
    chapter "The unit, as the machine's systemd has it"
    show "systemd-analyze security --no-pager crm-events-sink.service | tail -n 1"
    local score
    score=$(grep -oE '[0-9]+\.[0-9]' <<<"$out" | head -n 1)
    [ "${score/./}" -le 11 ] || fail "an exposure of $score is more than 1.1"
    show "systemctl show crm-events-sink -p MemoryMax -p TasksMax -p LimitNOFILE"
    holds '^MemoryMax=[0-9]+$'
    holds '^TasksMax=[0-9]+$'
    show "systemctl is-enabled crm-events-sink.service crm-events-sink-backup.timer" || true
    [ "$out" = $'enabled\ndisabled' ] || fail "the service is to be enabled and the backup's timer not"
    show "systemctl reload crm-events-sink && systemctl is-active crm-events-sink"
    holds '^active$'
}

rebooted() {
    chapter "Reboot"
    produce "$leads" 2000 400 200 &
    local load=$!
    reboot
    wait "$load"
    show "systemctl is-active crm-events-sink"
    holds '^active$'
    all_once
}

plug_pulled() {
    chapter "The plug is pulled in the middle of load"
    local before
    before=$(sql "SELECT count(*) FROM event_journal")
    produce "$leads" 3000 3000 1500 &
    local load=$!
    within 30 "[ \$(runuser -u crm-events-sink -- crm-events-sink sql --readonly 'SELECT count(*) FROM event_journal') -gt $((before + 500)) ]"
    pull_the_plug
    boot
    wait "$load"
    within 30 "systemctl is-active --quiet crm-events-sink"
    all_once
}

backed_up() {
    chapter "A backup by the packaged unit in the middle of load, and the way back"
    show "systemctl is-enabled crm-events-sink-backup.timer || true"
    holds '^disabled$'
    produce "$leads" 10000 1500 500 &
    local load=$!
    show "systemctl start crm-events-sink-backup.service; journalctl -u crm-events-sink-backup.service -o cat --no-pager"
    holds 'next offset'
    wait "$load"
    all_once
    show "systemctl stop crm-events-sink && crm-events-sink restore /var/lib/crm-events-sink/backups/journal-*.db --force" 40
    holds '^Restored to /var/lib/crm-events-sink/journal.db'
    show "stat -c '%A %U:%G' /var/lib/crm-events-sink/backups/* /var/lib/crm-events-sink/journal.db"
    holds '^-rw-.*crm-events-sink:crm-events-sink$'
    ! grep -q root <<<"$out" || fail "root has one of the files"
    show "systemctl start crm-events-sink"
    all_once
    show "runuser -u crm-events-sink -- crm-events-sink doctor" 30
    holds '^ok    broker'
}

# The package with another version, and other words in preinst, as its successor or forerunner would have.
repack() { # VERSION [SED-EXPRESSION]
    local folder=$work/repacked
    dpkg-deb -R "$package" "$folder"
    sed -i "s/^Version: .*/Version: $1/" "$folder/DEBIAN/control"
    [ -z "${2:-}" ] || sed -i "$2" "$folder/DEBIAN/preinst"
    dpkg-deb -Zgzip -b "$folder" "$root/srv/$1.deb" >/dev/null
    rm -rf "$folder"
}

upgraded() {
    chapter "Upgrade in the middle of load, with settings that were edited"
    repack 9.0.0-1
    show "dpkg-statoverride --update --add root crm-events-sink 0660 /etc/crm-events-sink/config.toml"
    produce "$jobs" 1000 1500 500 &
    local load=$!
    show "apt-get install -y /srv/9.0.0-1.deb" 30
    wait "$load"
    show "dpkg-query -W crm-events-sink; grep ^brokers /etc/crm-events-sink/config.toml; stat -c %A /etc/crm-events-sink/config.toml"
    holds '^-rw-rw----$'
    holds '9\.0\.0-1'
    holds "localhost:$port"
    show "dpkg-statoverride --remove /etc/crm-events-sink/config.toml"
    all_once
}

downgraded() {
    chapter "Downgrades: refused where the journal is newer, else done"
    repack 0.0.1-1 's/^reads=.*/reads=1/'
    ! show "apt-get install -y --allow-downgrades /srv/0.0.1-1.deb" 30 || fail "the older package was not refused"
    holds 'the journal has version'
    show "dpkg-query -W -f '\${Version} \${Status}\n' crm-events-sink; systemctl is-active crm-events-sink"
    holds '^9\.0\.0-1 install ok installed$'
    holds '^active$'
    all_once
    show "apt-get remove -y crm-events-sink && ! apt-get install -y /srv/0.0.1-1.deb" 30 || fail "the older package was not refused"
    holds 'the journal has version'
    show "apt-get install -y /srv/9.0.0-1.deb && apt-get install -y --allow-downgrades /srv/crm-events-sink.deb" 40
    show "dpkg-query -W crm-events-sink; grep ^brokers /etc/crm-events-sink/config.toml"
    holds "$(dpkg-deb -f "$package" Version)"
    holds "localhost:$port"
    all_once
}

disk_full() {
    chapter "Its disk is full: the journal on a disk of 96 MB"
    power_off
    truncate -s 96M "$work/disk"
    mkfs.ext4 -q -m 0 "$work/disk"
    mkdir "$work/mounted"
    mount -o loop "$work/disk" "$work/mounted"
    cp -a "$root/var/lib/crm-events-sink/." "$work/mounted/"
    chown --reference="$root/var/lib/crm-events-sink" "$work/mounted"
    umount "$work/mounted"
    mount -o loop "$work/disk" "$root/var/lib/crm-events-sink"
    boot
    all_once
    show "head -c 200M /dev/zero >/var/lib/crm-events-sink/filler" || true
    holds 'No space left'
    local letters
    letters=$(sql "SELECT count(*) FROM event_dlq")
    produce "$leads" 10000 30000
    within 60 "curl -s http://localhost:9106/health | grep -q unhealthy"
    show "curl -sS -w '%{http_code}' http://localhost:9106/health"
    holds '503$'
    show "systemctl status --no-pager crm-events-sink | grep -E 'Active|Status'"
    show "rm /var/lib/crm-events-sink/filler"
    all_once
    [ "$(sql "SELECT count(*) FROM event_dlq")" = "$letters" ] || fail "a full disk made dead letters"
}

removed() {
    chapter "Remove: the data and the settings stay"
    show "apt-get remove -y crm-events-sink" 20
    show "ls /etc/crm-events-sink /var/lib/crm-events-sink"
    holds 'journal.db'
    show "apt-get install -y /srv/crm-events-sink.deb" 20
    all_once
}

purge_keeps() {
    chapter "Purge, with no choice made: the journal stays"
    show "touch /etc/crm-events-sink/config.d/50-own.toml; apt-get purge -y crm-events-sink" 20
    holds 'is kept, with the journal'
    show "find /etc/crm-events-sink /var/lib/crm-events-sink/journal.db -type f"
    [ "$(wc -l <<<"$out")" = 2 ] || fail "that is not the journal and the file of one's own alone"
    show "rm -r /etc/crm-events-sink"

    chapter "Installed again, with the settings in place before the package"
    show "mkdir -p /etc/crm-events-sink && echo 'kafka.brokers = \"localhost:$port\"' >/etc/crm-events-sink/config.toml"
    show "apt-get install -y -o Dpkg::Options::=--force-confold /srv/crm-events-sink.deb" 20
    show "stat -c '%A %U:%G %n' /etc/crm-events-sink/config.toml; cat /etc/crm-events-sink/config.toml"
    holds '^-rw-r----- root:crm-events-sink'
    holds "localhost:$port"
    all_once
}

purge_takes() {
    chapter "Purge, with the choice made: the journal goes"
    show "touch /etc/crm-events-sink/purge-data && apt-get purge -y crm-events-sink" 20
    holds 'was removed'
    ! show "ls /etc/crm-events-sink /var/lib/crm-events-sink/journal.db" || fail "something was left"
}
