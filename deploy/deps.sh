# What the house is built and tested with, on Debian 12: `. deploy/deps.sh`. Says nothing and asks no network when
# nothing is missing; installs what is missing as root; as anybody else it says what root has to do.

PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
export PATH

# The oldest compiler that will do: rust-version of the workspace.
rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")

have() { command -v "$1" >/dev/null 2>&1; }

# A file of the package that has to be there, or a command of it.
missing_packages() {
    have gcc && have make && [ -e /usr/include/stdio.h ] || echo build-essential
    have pkg-config || echo pkg-config
    [ -e /usr/include/seccomp.h ] || echo libseccomp-dev
    have ip && have bridge && have ss || echo iproute2
    have nft || echo nftables
    have conntrack || echo conntrack
    have ping || echo iputils-ping
    have dig || echo dnsutils
    have sysctl || echo procps
    have unshare && have nsenter || echo util-linux
    have mount || echo mount
    # Disks whose power is cut, and syncs that fail: tests/src/faults.
    have mkfs.ext4 || echo e2fsprogs
    have strace || echo strace
    have perl || echo perl
    # The images of the tests and of the quickstart are made of it, so it may need no library.
    have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || echo busybox-static
    have tar || echo tar
    have jq || echo jq
    have qemu-system-x86_64 || [ "$(uname -m)" != x86_64 ] || echo qemu-system-x86
    have git || echo git
    have curl || echo curl
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

rust_is_new_enough() {
    have cargo && have rustc || return 1
    local found
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2) && [ -n "$found" ] || return 1
    [ "$(printf '%s\n' "$rust_wanted" "$found" | sort -V | head -n1)" = "$rust_wanted" ]
}

install_packages() {
    echo "deps: installing $*"
    if [ "$(id -u)" -ne 0 ]; then
        echo "deps: not root, so nothing was installed; as root: apt-get install --no-install-recommends $*" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # Lists that are there may do; a fresh machine has none.
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# rustup's own program, from the host that the toolchains come from, and checked: one host less to reach.
install_rustup() {
    local url dir
    url=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init
    dir=$(mktemp -d) || return
    curl --proto '=https' --tlsv1.2 -fsS --retry 3 -o "$dir/rustup-init" "$url" &&
        curl --proto '=https' --tlsv1.2 -fsS --retry 3 "$url.sha256" |
        (cd "$dir" && awk '{ print $1 "  rustup-init" }' | sha256sum --check --status) &&
        chmod +x "$dir/rustup-init" &&
        "$dir/rustup-init" -y -q --no-modify-path --profile minimal --component rustfmt --component clippy
    local status=$?
    rm -rf "$dir"
    return $status
}

install_rust() {
    if have rustup; then
        echo "deps: the toolchain is older than $rust_wanted; installing the stable one"
        rustup toolchain install stable --profile minimal --component rustfmt --component clippy || return
    else
        echo "deps: installing rustup and the stable toolchain for $(id -un)"
        install_rustup || return
        hash -r
    fi
    export RUSTUP_TOOLCHAIN=stable
    rust_is_new_enough
}

# Installs what is missing; false, with a sentence, if it cannot.
deps() {
    local packages
    packages=$(missing_packages)
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086  # one word a package
        install_packages $packages || { echo "deps: cannot install: ${packages//$'\n'/ }" >&2; return 1; }
    fi
    rust_is_new_enough || install_rust || { echo "deps: no Rust toolchain of $rust_wanted or newer" >&2; return 1; }
}
