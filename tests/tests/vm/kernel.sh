# What only a kernel with 802.1Q, bonding, teams, SCTP and cgroup v2 can show. FILES: shoal, page.tar, sctp.pl.
# Emulation is slow, above all where code runs for the first time: one host, few programs, and everything in the same
# containers. What takes two hosts or no such kernel is among the stories of tests/lab.
set -eu
export PATH=/files:$PATH

fail() { echo "FAILED: $*"; exit 1; }
# With the time since the machine began.
ok() { echo "ok: $1 ($(cut -d. -f1 /proc/uptime) s)"; }
# Until it holds, for a while.
eventually() {
    local what=$1 n=0
    shift
    until "$@" >/tmp/said 2>&1; do
        n=$((n + 1))
        [ $n -lt 100 ] || { cat /tmp/said; fail "$what"; }
        sleep 0.2
    done
    ok "$what"
}
holds() {
    local what=$1
    shift
    "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$what"; }
    ok "$what"
}
macvlan() { shoal network create -d macvlan --subnet "10.$1.0.0/24" -o "parent=$2" "n$1"; }
# Programs beside one another, for there are two processors; and to the end of all of them.
begun=
begin() {
    "$@" >/dev/null &
    begun="$begun $!"
}
finish() {
    for pid in $begun; do wait "$pid"; done
    begun=
}
# What waits for something waits not for ever.
within_a_minute() { timeout 60 "$@" >/tmp/said 2>&1 || { cat /tmp/said; shoal ps -a; fail "$*"; }; }
contains() {
    local text=$1
    shift
    "$@" | grep -F -- "$text"
}

# A published port, asked from everywhere.
sctp() {
    shoal network create --subnet 10.9.0.0/24 --ipv6 --subnet fd00:9::/64 bridged >/dev/null
    begin shoal run -d --name s --network bridged --ip 10.9.0.2 --ip6 fd00:9::2 -p 9999:99/sctp page idle
    begin shoal run -d --name c --network bridged --ip 10.9.0.3 --ip6 fd00:9::3 page idle
    ip netns add far
    ip link add far0 type veth peer name far1 netns far
    ip addr add 192.0.2.1/24 dev far0
    ip addr add 2001:db8::1/64 dev far0 nodad
    ip link set far0 up
    ip -n far addr add 192.0.2.2/24 dev far1
    ip -n far addr add 2001:db8::2/64 dev far1 nodad
    ip -n far link set far1 up
    finish
    server=$(shoal inspect --format '{{.Id}}' s)
    client=$(shoal inspect --format '{{.Id}}' c)
    in_its() { nsenter --net="/run/shoal/netns/$1" perl /files/sctp.pl "$2" "$3" "$4"; }
    in_its "$server" listen 10.9.0.2 99 &
    in_its "$server" listen fd00:9::2 99 &
    far() { ip netns exec far perl /files/sctp.pl ask "$1" 9999; }
    host() { perl /files/sctp.pl ask "$1" 9999; }
    # What is sent past the translation would be answered too.
    eventually 'SCTP: another host by a published port' contains '10.9.0.2 192.0.2.2' far 192.0.2.1
    eventually 'and over IPv6' contains 'fd00:9::2 2001:db8::2' far 2001:db8::1
    holds 'SCTP: the host by its own address' contains 10.9.0.2 host 192.0.2.1
    holds 'SCTP: the host by 127.0.0.1' contains 10.9.0.2 host 127.0.0.1
    holds 'SCTP: a neighbour, seen as who it is' contains '10.9.0.2 10.9.0.3' in_its "$client" ask 192.0.2.1 9999
    holds 'and over IPv6' contains 'fd00:9::2 fd00:9::3' in_its "$client" ask 2001:db8::1 9999
    holds 'SCTP: the container itself' contains 10.9.0.2 in_its "$server" ask 192.0.2.1 9999
    taken() { ! shoal run --rm -p 9999:9/sctp page true 2>/tmp/why && grep -F "9999/sctp" /tmp/why; }
    holds 'SCTP: a port has one owner' taken
    within_a_minute shoal rm -f s c
    refused() { ! far 192.0.2.1; }
    holds 'SCTP: a port goes with its container' refused
    ip netns del far
    within_a_minute shoal network rm bridged
}

# On the one host of a lab, whose neighbours are the other end of a wire.
inside() {
    begin shoal image import /files/page.tar page
    ip link add wire0 type veth peer name wire1
    ip link set wire0 up
    ip link set wire1 up
    for id in 50 60; do
        ip link add link wire1 name "wire1.$id" type vlan id "$id"
        ip addr add "10.$id.0.1/24" dev "wire1.$id"
        ip link set "wire1.$id" up
    done
    # Nobody sends there.
    ip link add link wire1 name wire1.51 type vlan id 51
    ip link set wire1.51 up
    # Somebody else's sub-interface, which serves as well.
    ip link add link wire0 name wire0.60 type vlan id 60
    ip link set wire0.60 up
    ip link add s0 type veth peer name s1
    ip link set s1 up
    ip link add link s1 name s1.70 type vlan id 70
    ip addr add 10.80.0.1/24 dev s1
    ip addr add 10.70.0.1/24 dev s1.70
    ip link set s1.70 up
    ip link add bond0 type bond mode active-backup
    ip link set s0 master bond0
    ip link set bond0 up
    ip link add team0 type team
    ip link set team0 up

    begin macvlan 50 wire0.50
    begin macvlan 60 wire0.60
    begin macvlan 70 bond0.70
    begin macvlan 80 bond0
    begin macvlan 90 team0
    finish
    ok 'an image, and networks on any parent link'
    begin shoal run -d --name big --memory 16m page sh -c 'x=a; while :; do x=$x$x; done'
    id=$(shoal run -d --name a --memory 32m --cpus 0.5 --pids-limit 20 --cap-add SYSLOG \
        --network n50 --network n60 --network n70 --network n80 --network n90 page idle)
    ok "a container runs: $id"
    in_a() { nsenter --net="/run/shoal/netns/$id" "$@"; }
    heard() { cat "/sys/class/net/$1/statistics/rx_packets"; }

    holds 'a sub-interface is made on demand' contains 'vlan protocol 802.1Q id 50' ip -d link show wire0.50
    holds 'its alias says whose it is' contains 'alias shoal' ip link show wire0.50
    eventually 'a neighbour on that VLAN is met' in_a ping -c 1 -W 1 10.50.0.1
    holds 'the frames are tagged' [ "$(heard wire1.50)" -ge 1 ]
    holds 'nobody hears them on another VLAN' [ "$(heard wire1.51)" = 0 ]
    eventually 'the other VLAN has neighbours of its own' in_a ping -c 1 -W 1 10.60.0.1
    eventually 'a neighbour over bond0.70' in_a ping -c 1 -W 1 10.70.0.1
    eventually 'a neighbour over bond0' in_a ping -c 1 -W 1 10.80.0.1
    holds 'a sub-interface of a bond' contains 'vlan protocol 802.1Q id 70' ip -d link show bond0.70
    holds 'five macvlan links, one over team0' [ "$(in_a ip -d link | grep -c 'macvlan mode bridge')" = 5 ]

    group=$(find /sys/fs/cgroup -type d -name "$id" | head -n1)
    [ -n "$group" ] || fail 'no cgroup'
    holds 'memory is limited' [ "$(cat "$group/memory.max")" = 33554432 ]
    holds 'CPU is limited' [ "$(cat "$group/cpu.max")" = '50000 100000' ]
    holds 'processes are limited' [ "$(cat "$group/pids.max")" = 20 ]
    holds 'and it is seen' contains 32.0MiB shoal stats --no-stream a
    holds 'a limit is not lifted from inside' shoal exec a sh -c '! (echo max > /sys/fs/cgroup/memory.max) 2>/dev/null &&
        [ "$(cat /sys/fs/cgroup/memory.max)" = 33554432 ]'
    # /dev is no nodev: nothing but the program of its cgroup keeps it from the kernel's messages, which SYSLOG would allow.
    holds 'a device that it makes is not opened' shoal exec a sh -c 'mknod /dev/k c 1 11 && ! (: < /dev/k) 2>/dev/null &&
        : < /dev/null'
    finish
    eventually 'who takes more memory is ended, and it is said why' contains 'memory limit' shoal inspect big

    sctp
    within_a_minute shoal rm -f a big
    gone() { ! ip link show "$1"; }
    eventually 'a sub-interface goes with the last container that needs it' gone wire0.50
    eventually 'also that of a bond' gone bond0.70
    holds "somebody else's stays" ip link show wire0.60
    eventually 'a cgroup goes with its container' [ ! -d "$group" ]
}

if [ "${1:-}" = inside ]; then
    # What the daemon said last, whatever went wrong.
    trap 'status=$?; [ $status = 0 ] || tail -n 25 /var/lib/shoal-lab/lab/hosts/*/daemon.log; exit $status' EXIT
    inside
else
    ok 'the machine is up'
    shoal lab up --managers 1 --workers 0 >/dev/null
    ok 'a lab of one host'
    shoal lab exec m1 -- sh "$0" inside
    shoal lab down >/dev/null
    # (There is a bond0: bonding makes one where it is loaded.)
    nothing() { ! ip -o link | grep -E 'shoal|wire|team0|eth0' && [ -z "$(nft list tables)" ]; }
    holds 'nothing is left' nothing
fi
