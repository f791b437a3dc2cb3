#!/usr/bin/env bash
# Real faults on a lab of three managers and two workers, one table: faults.sh [MINUTES [ROW…]]
# Each row is tried once, then all in turn until the time is over (10 minutes, unless said otherwise). Clients write all
# the while; the exit status is 0 if nothing that was acknowledged is lost and nothing was given to two owners.
# The managers' disks are ext4 in image files, whose power is cut by the kernel's own EXT4_IOC_SHUTDOWN.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/deps.sh
if [ "$(id -u)" -ne 0 ]; then
    echo "faults: run as root: it mounts file systems and stops processes" >&2
    exit 1
fi
deps
cargo build --locked --quiet -p shoal -p shoal-tests --bin shoal --example faults
exec "$(realpath "${CARGO_TARGET_DIR:-target}")/debug/examples/faults" "${@:-10}"
