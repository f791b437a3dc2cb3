#!/usr/bin/env bash
# The figures of the README, measured on this machine: what one container costs beside the bare OCI runtime (the
# floor), then what a cluster of five lab hosts takes, what one replica more costs a manager of many hosts, and one more
# container on a host with many. Ratios count; the machine should have nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/deps.sh
if [ "$(id -u)" -ne 0 ]; then
    echo "bench: run as root" >&2
    exit 1
fi
deps
cargo build --locked --release --quiet -p shoal
cargo build --locked --release --quiet -p shoal-runtime --example supervisor
cargo bench --locked --quiet -p shoal-runtime --bench start
echo
cargo bench --locked --quiet -p shoal-tests --bench cluster
echo
cargo bench --locked --quiet -p shoal-control --bench change
echo
cargo bench --locked --quiet -p shoal-tests --bench host
echo
deploy/failover.sh 30
