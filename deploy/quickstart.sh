#!/usr/bin/env bash
# A cluster of five hosts on this machine, shown working: quickstart.sh [--keep]
# Installs what is missing, builds, and checks; each check is a line, the last line counts them. Nothing is left
# behind, unless --keep. Only installing needs root. SHOAL=PROGRAM shows one that was built before.
set -uo pipefail
cd "$(dirname "$0")/.."
. deploy/deps.sh

keep=no
case "${1:-}" in
    '') ;;
    --keep) keep=yes ;;
    *) echo "usage: quickstart.sh [--keep]" >&2; exit 2 ;;
esac
if [ -n "${SHOAL:-}" ]; then
    shoal=$SHOAL
    # Its hosts find it by that name.
    if [ "$(basename "$shoal")" != shoal ] || [ ! -x "$shoal" ]; then
        echo "quickstart: SHOAL is \"$shoal\"; a program called shoal is wanted" >&2
        exit 2
    fi
else
    deps || exit 1
    echo "== build"
    cargo build --locked --release --bin shoal --quiet || exit 1
    shoal=$(realpath "${CARGO_TARGET_DIR:-target}")/release/shoal
fi
lab=quickstart
work=$(mktemp -d)
passed=0
failed=0
up=no

finish() {
    if [ "$keep" = yes ] && [ "$up" = yes ]; then
        cat <<TEXT
The lab is kept. To use it:
    $shoal lab --name $lab ls
    $shoal lab --name $lab exec m1 -- shoal service ls
To remove it:
    $shoal lab --name $lab down
TEXT
    else
        "$shoal" lab --name "$lab" down >/dev/null 2>&1
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# check SENTENCE COMMAND…: the command says nothing and is true, or says what it found.
check() {
    local sentence=$1 found
    shift
    if found=$("$@" 2>&1); then
        passed=$((passed + 1))
        found=${found##*$'\n'}
        echo "ok    $sentence${found:+ ($found)}"
    else
        failed=$((failed + 1))
        echo "FAIL  $sentence${found:+: $found}"
    fi
}

# Tries until it is true, for so many seconds.
within() {
    local end=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        [ $SECONDS -lt "$end" ] || { echo "$said"; return 1; }
        sleep 0.1
    done
    echo "$said"
}

on() { local host=$1; shift; "$shoal" lab --name "$lab" exec "$host" -- "$@"; }
ask() { on "${manager:-m1}" shoal "$@"; }
hosts="m1 m2 m3 w1 w2"

# The tasks of a service that run: id, host, addresses.
running() { ask service ps "$1" --format json | jq -r 'select(.State == "running" and .DesiredState == "Running") | [.ID, .Node, .Endpoints[0].IPv4, .Endpoints[0].IPv6] | @tsv'; }

# inside HOST TASK COMMAND…: this machine's program, with that container's network and its resolv.conf.
inside() {
    local host=$1 task=$2 data
    shift 2
    data=$("$shoal" lab --name "$lab" ls --format json | jq -r --arg h "$host" 'select(.host == $h) | .data')
    # shellcheck disable=SC2016  # for the inner shell
    on "$host" nsenter --net="/run/shoal/netns/$task" unshare -m sh -c \
        'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"' "$data/containers/$task/resolv.conf" "$@"
}
fetch() { local host=$1 task=$2; shift 2; inside "$host" "$task" curl -sS --fail --max-time 3 "$@"; }
name() { local host=$1 task=$2; shift 2; inside "$host" "$task" dig +short +time=1 +tries=1 @127.0.0.11 "$@"; }

echo "== a lab of 3 managers and 2 workers"
"$shoal" lab --name "$lab" down >/dev/null 2>&1
"$shoal" lab --name "$lab" up --managers 3 --workers 2 || exit 1
up=yes

is_cluster() {
    local ready
    ready=$(ask node ls --format json | jq -r 'select(.Status == "Ready") | .Hostname' | sort | xargs)
    [ "$ready" = "$hosts" ] || { echo "ready: $ready"; return 1; }
}
check "five hosts are one cluster, by init and join" within 10 is_cluster
voters() { [ "$(ask node ls --format json | jq -r 'select(.Raft == "leader" or .Raft == "voter") | .Hostname' | wc -l)" = 3 ]; }
check "three managers vote" within 10 voters

is_ready() { ask node ls --format json | jq -es --arg h "$1" 'any(.Hostname == $h and .Status == "Ready")' >/dev/null; }

echo "== an image, without any network"
mkdir -p "$work/root/bin" "$work/root/www" "$work/root/etc" "$work/root/tmp"
cp "$(command -v busybox)" "$work/root/bin/busybox"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$work/root/bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$work/root/etc/passwd"
cat >"$work/root/bin/serve" <<'SH'
#!/bin/sh
trap 'exit 0' TERM INT
hostname > /www/index.html
httpd -f -p 80 -h /www &
wait
SH
cat >"$work/root/bin/idle" <<'SH'
#!/bin/sh
trap 'exit 0' TERM INT
sleep 86400 &
wait
SH
chmod 755 "$work/root/bin/serve" "$work/root/bin/idle"
tar -C "$work/root" -cf "$work/demo.tar" .
import() { local h; for h in $hosts; do on "$h" shoal image import "$work/demo.tar" demo:1 >/dev/null || return 1; done; }
check "an image made of busybox is imported on every host" import

echo "== networks"
refused() { local said; said=$(ask "$@" 2>&1) && { echo "it was accepted"; return 1; }; echo "$said" | head -n1; }
check "network blue, dual stack" ask network create -d overlay --ipv6 --subnet 192.168.10.0/24 blue
check "an overlap that nobody asked for is refused" refused network create -d overlay --subnet 192.168.10.0/24 red
check "with --allow-overlap red has the same subnet" ask network create -d overlay --allow-overlap --subnet 192.168.10.0/24 red

echo "== services"
check "web: 3 replicas on blue, converged" ask service create --name web --replicas 3 --network blue demo:1 serve
check "client: one on every host, on blue" ask service create --name client --mode global --network blue demo:1 idle
check "stranger: on red" ask service create --name stranger --network red demo:1 idle

vip4=$(ask service inspect web --format '{{(index .Endpoint.VirtualIPs 0).Addr}}')
vip6=$(ask service inspect web --format '{{(index .Endpoint.VirtualIPs 0).IPv6}}')
declare -A client
while read -r task host _; do client[$host]=$task; done < <(running client)

name_is_vip() {
    local h
    for h in $hosts; do
        [ "$(name "$h" "${client[$h]}" web A)" = "$vip4" ] || { echo "$h: not $vip4"; return 1; }
        [ "$(name "$h" "${client[$h]}" web AAAA)" = "$vip6" ] || { echo "$h: not $vip6"; return 1; }
    done
    echo "$vip4 $vip6"
}
check "the name web is its VIP on every host, v4 and v6" name_is_vip

# Every replica answers in turn, asked from every host.
all_answer() {
    local h seen
    for h in $hosts; do
        seen=$(for _ in $(seq 30); do fetch "$h" "${client[$h]}" "$@" || echo nothing; done | sort | uniq | xargs)
        [ "$(wc -w <<<"$seen")" = 3 ] && ! grep -q nothing <<<"$seen" || { echo "from $h: $seen"; return 1; }
    done
    echo "$seen"
}
check "every replica answers by the name, from every host, v4" all_answer -4 http://web/
check "every replica answers by the name, from every host, v6" all_answer -6 http://web/

read -r stranger stranger_host _ < <(running stranger)
isolated() {
    [ -z "$(name "$stranger_host" "$stranger" web A)" ] || { echo "the name is known"; return 1; }
    fetch "$stranger_host" "$stranger" "http://$vip4/" 2>/dev/null && { echo "the VIP answers"; return 1; }
    return 0
}
check "red, with the same subnet, neither knows nor reaches web" isolated

echo "== a host dies"
# A host that runs a replica, and is not the leader.
leader=$(ask node ls --format json | jq -r 'select(.Raft == "leader") | .Hostname')
victim=$(running web | awk -v l="$leader" '$2 != l { print $2 }' | tail -n1)
stale=$(running web | awk -v h="$victim" '$2 == h { print $3 }')
for m in m1 m2 m3; do [ "$m" = "$victim" ] || [ "$m" = "$leader" ] || manager=$m; done
"$shoal" lab --name "$lab" power-off "$victim" >/dev/null
hosts=$(for h in $hosts; do [ "$h" = "$victim" ] || echo "$h"; done | xargs)
replaced() { [ "$(running web | awk -v h="$victim" '$2 != h' | wc -l)" = 3 ]; }
begin=$SECONDS
check "the tasks of $victim are replaced elsewhere" within 20 replaced
echo "      after $((SECONDS - begin)) s; the node timeout is 5 s"
not_stale() {
    local h address
    for h in $hosts; do
        for address in $stale; do
            name "$h" "${client[$h]}" tasks.web A | grep -qx "$address" && { echo "$h still answers $address"; return 1; }
        done
        for _ in $(seq 12); do
            fetch "$h" "${client[$h]}" http://web/ >/dev/null || { echo "from $h a request failed"; return 1; }
        done
    done
}
check "no host answers with an address of $victim, and every request succeeds" not_stale

echo "== the leader dies"
leader=$(ask node ls --format json | jq -r 'select(.Raft == "leader") | .Hostname')
for m in m1 m2 m3; do [ "$m" = "$victim" ] || [ "$m" = "$leader" ] || manager=$m; done
if [ "$victim" = m1 ] || [ "$victim" = m2 ] || [ "$victim" = m3 ]; then
    # Two of three managers would be gone: the first one comes back before.
    "$shoal" lab --name "$lab" start "$victim" >/dev/null
    check "$victim is back" within 20 is_ready "$victim"
fi
"$shoal" lab --name "$lab" kill "$leader" >/dev/null
check "$leader, the leader, is killed: the next command works" ask service scale web=4
still_served() {
    local h
    for h in $hosts; do
        fetch "$h" "${client[$h]}" http://web/ >/dev/null || { echo "from $h a request failed"; return 1; }
    done
}
check "web answers by its name from every host, also from $leader, which has no daemon" still_served
"$shoal" lab --name "$lab" start "$leader" >/dev/null
check "$leader is back" within 20 is_ready "$leader"

echo "quickstart: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
