# What only a kernel with 802.1Q, bonding, teams and cgroup v2 can show. FILES: shoal, page.tar.
set -eu
export PATH=/files:$PATH

m1() { timeout 60 shoal lab exec m1 -- "$@" || { echo "status $?: $*"; return 1; }; }
w1() { timeout 60 shoal lab exec w1 -- "$@" || { echo "status $?: $*"; return 1; }; }
# What the daemons said last, whatever went wrong.
trap 'status=$?; [ $status = 0 ] || tail -n 25 /var/lib/shoal-lab/lab/hosts/*/daemon.log; exit $status' EXIT
fail() { echo "FAILED: $*"; exit 1; }
# Until it holds, for a while.
eventually() {
    local what=$1 n=0
    shift
    until "$@" >/tmp/said 2>&1; do
        n=$((n + 1))
        [ $n -lt 40 ] || { cat /tmp/said; fail "$what"; }
        sleep 0.2
    done
    echo "ok: $what"
}
holds() {
    local what=$1
    shift
    "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$what"; }
    echo "ok: $what"
}
refuses() {
    local what=$1 sentence=$2
    shift 2
    if "$@" >/tmp/said 2>&1; then cat /tmp/said; fail "$what: it was accepted"; fi
    grep -q "$sentence" /tmp/said || { cat /tmp/said; fail "$what: other words"; }
    echo "ok: $what"
}

shoal lab up --managers 1 --workers 1 >/dev/null
m1 shoal image import /files/page.tar page >/dev/null
w1 shoal image import /files/page.tar page >/dev/null

# Sub-interfaces, on demand, on two hosts; one IPAM.
w1 ip link add link eth0 name eth0.60 type vlan id 60
w1 ip link set eth0.60 up
m1 shoal network create -d macvlan --subnet 10.50.0.0/24 -o parent=eth0.50 v50 >/dev/null
m1 shoal network create -d macvlan --subnet 10.60.0.0/24 -o parent=eth0.60 v60 >/dev/null
m1 shoal run -d --name a --network v50 page serve >/dev/null
w1 shoal run -d --name b --network v50 page serve >/dev/null
w1 shoal run -d --name c --network v60 page serve >/dev/null
holds 'a sub-interface is made on demand' sh -c 'shoal lab exec m1 -- ip -d link show eth0.50 | grep "vlan protocol 802.1Q id 50"'
eventually 'containers of two hosts meet on a VLAN, by name' m1 shoal exec a ping -c 1 -W 1 b
tagged() { [ "$(shoal lab exec w1 -- ip -j -s link show eth0.50 | jq '.[0].stats64.rx.packets')" -ge 1 ]; }
holds 'their frames are tagged' tagged
holds 'nobody hears them on another VLAN' sh -c '[ "$(shoal lab exec w1 -- ip -j -s link show eth0.60 | jq ".[0].stats64.rx.packets")" = 0 ]'
m1 shoal run -d --name d --network v60 page serve >/dev/null
eventually 'the other VLAN has neighbours of its own' m1 shoal exec d ping -c 1 -W 1 c

m1 shoal rm -f a d >/dev/null
w1 shoal rm -f b c >/dev/null
gone() { ! shoal lab exec "$1" -- ip link show "$2"; }
eventually 'a sub-interface goes with the last container that needs it' gone m1 eth0.50
eventually 'on each host' gone w1 eth0.50
eventually "also the other one, where it was Shoal's" gone m1 eth0.60
holds "somebody else's stays" w1 ip link show eth0.60
m1 shoal network rm v50 v60 >/dev/null

# Any parent link.
m1 ip link add s0 type veth peer name s1
m1 ip link set s1 up
m1 ip link add bond0 type bond mode active-backup
m1 ip link set s0 down
m1 ip link set s0 master bond0
m1 ip link set bond0 up
m1 ip link add t0 type veth peer name t1
m1 ip link set t1 up
m1 ip link add team0 type team
m1 ip link set team0 up
for parent in bond0 bond0.70 team0; do
    m1 shoal network create -d macvlan --subnet 10.70.0.0/24 -o "parent=$parent" over >/dev/null
    m1 shoal run -d --name a --network over page serve >/dev/null
    m1 shoal run -d --name b --network over page serve >/dev/null
    holds "a macvlan over $parent" sh -c "shoal lab exec m1 -- nsenter --net=/run/shoal/netns/$(m1 shoal ps -q --filter name=a) ip -d link show eth0 | grep 'macvlan mode bridge'"
    [ "$parent" = team0 ] || eventually "neighbours over $parent" m1 shoal exec a ping -c 1 -W 1 b
    m1 shoal rm -f a b >/dev/null
    m1 shoal network rm over >/dev/null
done

# Limits, by cgroup v2.
m1 shoal run -d --name small --memory 32m --cpus 0.5 --pids-limit 20 page idle >/dev/null
group=$(find /sys/fs/cgroup -type d -name "$(m1 shoal ps -q --filter name=small)" | head -n1)
[ -n "$group" ] || fail 'no cgroup'
holds 'memory, CPU and processes are limited' sh -c "[ \$(cat $group/memory.max) = 33554432 ] && [ \"\$(cat $group/cpu.max)\" = '50000 100000' ] && [ \$(cat $group/pids.max) = 20 ]"
holds 'and are seen' sh -c 'shoal lab exec m1 -- shoal stats --no-stream small | grep -F 32.0MiB'
m1 shoal run -d --name big --memory 16m page sh -c 'x=a; while :; do x=$x$x; done' >/dev/null
eventually 'who takes more memory is ended, and it is said why' sh -c 'shoal lab exec m1 -- shoal inspect big | grep "memory limit"'
m1 shoal rm -f small big >/dev/null
holds 'a cgroup goes with its container' [ ! -d "$group" ]

shoal lab down >/dev/null
holds 'nothing is left' sh -c '! ip -o link | grep -E "shoal|bond0|eth0" && [ -z "$(nft list tables)" ]'
