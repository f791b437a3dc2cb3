#!/usr/bin/env bash
# Every test, as CI runs it: format, clippy, tests, docs. With arguments, of these packages only: test.sh -p shoal-dns
# All steps run, whatever one of them says; the last line counts the tests, and the exit status is 0 if all is well.
set -uo pipefail
cd "$(dirname "$0")/.."
. deploy/deps.sh

if [ "$(id -u)" -ne 0 ]; then
    echo "test: run as root: tests make network namespaces, nftables tables, mounts and cgroups of their own" >&2
    exit 1
fi
deps || exit 1

packages=("$@")
[ $# -gt 0 ] || packages=(--workspace)
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=()

step() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name: $*"
    if "$@"; then
        echo "== $name: ok, $((SECONDS - begin)) s"
    else
        echo "== $name: FAILED, $((SECONDS - begin)) s"
        failed+=("$name")
        return 1
    fi
}

tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        # nextest runs no examples of the docs.
        cargo nextest run --locked "${packages[@]}" --no-fail-fast --no-tests=pass 2>&1 | tee -a "$output"
        local status=$?
        cargo test --locked "${packages[@]}" --no-fail-fast --doc 2>&1 | tee -a "$output" && return $status
    else
        cargo test --locked "${packages[@]}" --no-fail-fast 2>&1 | tee -a "$output"
    fi
}

# The seeds that once failed, 500 others, and each mutant until it is noticed. One test at a time: each takes all cores.
simulation() {
    cargo clippy --locked -p shoal-raft --features sim --all-targets -- -D warnings || return
    cargo test --locked --profile sim -p shoal-raft --features sim --test simulation -- --test-threads=1 2>&1 |
        tee -a "$output"
}

# The sum of the numbers before a word, in the lines in which the runners sum up. (nextest shows the output of a test
# that failed, which has such a line too, and indents it.)
count() {
    sed 's/\x1b\[[0-9;]*m//g' "$output" | grep -E '^( *Summary \[|test result:)' |
        grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'
}

# One selection of packages throughout, so that each feature set of a dependency is compiled once: for checking by
# clippy, which the docs use again, and for running by `build`, which the tests use again. `--tests` beside `--bins`
# is what makes the features of the two the same; the lab tests run the `shoal` that `--bins` leaves in the target dir.
step fmt cargo fmt "${packages[@]/#--workspace/--all}" --check
step clippy cargo clippy --locked "${packages[@]}" --all-targets -- -D warnings
# No build of the workspace has the simulation in it (deploy/simulate.sh): it is checked and run by itself.
[ $# -gt 0 ] || step simulation simulation
# Private items too: most of what a reader looks up is private to its crate.
step docs env RUSTDOCFLAGS=-Dwarnings cargo doc --locked "${packages[@]}" --no-deps --document-private-items --quiet
step build cargo build --locked "${packages[@]}" --bins --tests --examples --quiet && step tests tests

passed=$(count passed)
broken=$(( $(count failed) + $(count 'timed out') ))
ignored=$(( $(count ignored) + $(count skipped) ))
echo "test: $passed passed, $broken failed, $ignored ignored;" \
    "$([ ${#failed[@]} -eq 0 ] && echo "all steps ok" || echo "failed steps: ${failed[*]}")"
[ ${#failed[@]} -eq 0 ]
