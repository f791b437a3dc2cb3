#!/usr/bin/env bash
# How long a cluster takes no write after its leader was killed: a lab of three managers and two workers, ROUNDS times
# (30). The clock runs from `kill -9` until the command line has ended whose write on another manager waited meanwhile.
# Also counted: sessions of agents with managers that were not killed and broke all the same.
#
#   deploy/failover.sh [ROUNDS] [PROGRAM]
set -euo pipefail
rounds=${1:-30}
shoal=$(realpath "${2:-$(dirname "$0")/../target/release/shoal}")
lab=failover$$
hosts=/var/lib/shoal-lab/$lab/hosts
at() { "$shoal" lab --name "$lab" exec "$1" -- "$shoal" "${@:2}"; }
trap '"$shoal" lab --name "$lab" down >/dev/null' EXIT
"$shoal" lab --name "$lab" up --managers 3 --workers 2 >/dev/null

# Of one node in the list, a field.
field() { sed -n "/\"Hostname\":\"$1\"/s/.*\"$2\":\"\([^\"]*\)\".*/\1/p"; }
# Sessions that broke, but for those with the manager of this id.
lost() { cat "$hosts"/*/daemon.log | grep "no session with manager" | grep -vc "manager $1 at" || true; }

took=()
dropped=0
for round in $(seq "$rounds"); do
    nodes=""
    until [ "$(grep -c '"ManagerStatus":"\(Leader\|Reachable\)"' <<<"$nodes")" = 3 ]; do
        sleep 0.2
        nodes=$(at m1 node ls --format json 2>/dev/null || true)
    done
    killed=$(sed -n 's/.*"Hostname":"\([^"]*\)".*"ManagerStatus":"Leader".*/\1/p' <<<"$nodes")
    id=$(field "$killed" ID <<<"$nodes")
    other=m1
    [ "$killed" != m1 ] || other=m2
    before=$(lost "$id")
    begin=$(date +%s%N)
    # As `shoal lab kill` does, without the time that another start of the program takes.
    kill -9 "$(cut -d' ' -f1 "$hosts/$killed/daemon.pid")"
    at "$other" node update --label-add "round=$round" w1 >/dev/null
    end=$(date +%s%N)
    took+=($(((end - begin) / 1000000)))
    # Long enough for an agent to notice that its manager reaches no leader.
    sleep 4
    dropped=$((dropped + $(lost "$id") - before))
    printf 'round %3d: %s killed, the next write after %d ms\n' "$round" "$killed" "${took[-1]}" >&2
    "$shoal" lab --name "$lab" start "$killed" >/dev/null
    # The list of the others may still show it as it was: the next leader is killed once this one is back.
    until at "$killed" node ls >/dev/null 2>&1; do sleep 0.2; done
    sleep 1
done
mapfile -t sorted < <(printf '%s\n' "${took[@]}" | sort -n)
n=${#sorted[@]}
echo "ms from killing the leader to the next acknowledged write, and sessions with healthy managers that broke"
printf '%8s %8s %8s %8s %8s %8s\n' rounds min p50 p99 max dropped
printf '%8d %8d %8d %8d %8d %8d\n' "$n" "${sorted[0]}" "${sorted[$((n / 2))]}" \
    "${sorted[$(((n * 99 + 99) / 100 - 1))]}" "${sorted[-1]}" "$dropped"
