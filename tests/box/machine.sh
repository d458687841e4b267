# A machine of Debian's $suite in a folder, booted with systemd-nspawn, in a network of its own that has nothing but loopback: Kafka
# stands in the same one, and the ports are those of a real box. Sourced by box.sh; needs root.
#
# $work is a folder for this run alone, $name the machine's name, unique on the host.

root=$work/root
leader=''

as_box() { ip netns exec "$name" "$@"; }

# The base system, once: about a minute and a half. $base is kept. What the package depends on is in it, as the machine reaches
# no archive.
make_base() {
    local ssl
    [ ! -d "$base" ] || return 0
    case "$suite" in
        bookworm) ssl=libssl3 ;;
        *) ssl=libssl3t64 ;;
    esac
    echo "Making Debian $suite in $base, once"
    rm -rf "$base.part"
    debootstrap --variant=minbase \
        --include="systemd,systemd-sysv,dbus,curl,ca-certificates,$ssl,zlib1g,procps" \
        "$suite" "$base.part" >"$base.log" 2>&1 || { tail -n 5 "$base.log" >&2; return 1; }
    # What was downloaded is installed by now.
    rm -rf "$base.part"/var/cache/apt/archives/*.deb
    mv "$base.part" "$base"
}

make_machine() {
    make_base
    mkdir -p "$root" "$work/upper" "$work/overlay"
    mount -t overlay "$name" -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" "$root"
    echo "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost %s\n' "$name" >"$root/etc/hosts"
    echo 'Dpkg::Use-Pty "0"; quiet "1";' >"$root/etc/apt/apt.conf.d/90box"
    # Every transcript line is the box's own; its journal is kept across boots.
    mkdir -p "$root/var/log/journal"
    ip netns add "$name"
    as_box ip link set lo up
}

# A control group of the machine's own in each hierarchy, where no systemd manages those of the host.
control_groups() {
    local root
    [ ! -d /run/systemd/system ] || return 0
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        [ ! -e "$root/cgroup.procs" ] || echo "$root/$name"
    done
}

# Starts the machine and waits until its systemd has started everything.
boot() {
    local group
    for group in $(control_groups); do mkdir -p "$group"; done
    (
        for group in $(control_groups); do echo "$BASHPID" >"$group/cgroup.procs"; done
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --register=no --keep-unit --machine="$name" \
            --directory="$root" --network-namespace-path="/run/netns/$name" --resolv-conf=off --timezone=off \
            --boot --console=pipe >>"$work/console" 2>&1 </dev/null
    ) &
    nspawn=$!
    await_boot
}

await_boot() {
    local state
    for _ in $(seq 600); do
        sleep 0.1
        kill -0 "$nspawn" 2>/dev/null || { tail -n 20 "$work/console" >&2; fail "the machine ended"; }
        leader=$(pgrep -P "$nspawn" -x systemd) || continue
        state=$(in_box systemctl is-system-running 2>/dev/null) || true
        case "$state" in running | degraded) return ;; esac
    done
    fail "the machine did not start within a minute; see $work/console"
}

# Runs a command in the machine, as its root.
in_box() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# Ends every process of the machine at once, as a plug that is pulled would; what the kernel had been given to write stays.
pull_the_plug() {
    kill -9 "$leader"
    wait "$nspawn" 2>/dev/null || true
    leader=''
}

power_off() {
    in_box systemctl poweroff
    wait "$nspawn" || true
    leader=''
}

# The machine's own `systemctl reboot`: systemd-nspawn ends with 133, as it tells its own unit to start it again.
reboot() {
    local code=0
    in_box systemctl reboot
    wait "$nspawn" || code=$?
    [ "$code" = 133 ] || fail "the machine ended with $code instead of rebooting"
    boot
}

remove_machine() {
    local group
    [ -z "$leader" ] || kill -9 "$leader" 2>/dev/null || true
    [ -z "${nspawn:-}" ] || { kill -9 "$nspawn" 2>/dev/null || true; wait "$nspawn" 2>/dev/null || true; }
    for group in $(control_groups); do
        # Processes that were killed leave it one by one.
        for _ in $(seq 50); do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
    done
    ! mountpoint -q "$root/var/lib/crm-events-sink" || umount -l "$root/var/lib/crm-events-sink"
    ! mountpoint -q "$root" || umount -l "$root"
    ip netns delete "$name" 2>/dev/null || true
}
