#!/usr/bin/env bash
# The managers' consensus in simulation, any number of seeds on all cores, with one line of counts at the end:
#   simulate.sh COUNT [FIRST] [MUTANT]    the seeds FIRST (1) to FIRST + COUNT - 1; a mutant until it is noticed
#   simulate.sh seed SEED [MUTANT]        every event of one seed
# The exit status is 0 if everything held. A seed that failed belongs into manager/raft/simulate/regressions.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/deps.sh
deps
cargo build --locked --quiet --profile sim -p shoal-raft --features sim --bin shoal-simulate
exec "${CARGO_TARGET_DIR:-target}/sim/shoal-simulate" "$@"
