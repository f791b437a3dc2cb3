#!/usr/bin/env bash
# Runs a script under Debian's own kernel, in a virtual machine that is gone afterwards: vm.sh SCRIPT [FILE...]
# For what the kernel of this machine lacks (802.1Q, bonding, …). In the machine SCRIPT is run by sh as root, as process
# 1's only child, with the FILEs in /files and nothing else of this machine but some programs. The machine has no
# network. What SCRIPT prints is printed, and its exit status is this one's. Emulated, so it needs no /dev/kvm.
# The kernel is fetched once, by apt, into VM_CACHE (default target/vm).
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
. "$repo/deploy/deps.sh"
deps
have qemu-system-x86_64 || install_packages qemu-system-x86

[ $# -ge 1 ] || { echo "usage: vm.sh SCRIPT [FILE...]" >&2; exit 2; }
[ "$(uname -m)" = x86_64 ] || { echo "vm: this needs an x86-64 machine" >&2; exit 2; }
for file in "$@"; do
    [ -r "$file" ] || { echo "vm: cannot read $file" >&2; exit 2; }
done
cache=${VM_CACHE:-$repo/target/vm}
# Minutes of emulation that a script may take.
limit=${VM_MINUTES:-7}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest kernel for virtual machines, as the lists of this machine have it; into a directory.
fetch() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
    [ -n "$package" ] && (cd "$1" && apt-get download -qq "$package" >/dev/null 2>&1)
}

kernel() {
    [ -e "$cache/vmlinuz" ] && return
    mkdir -p "$cache"
    local new
    new=$(mktemp -d "$cache/new.XXXXXX")
    # A list that is old names a package that is gone; a fresh machine has none.
    if ! fetch "$new" && ! { apt-get update -qq && fetch "$new"; }; then
        rm -rf "$new"
        echo "vm: apt does not have linux-image-cloud-amd64" >&2
        return 1
    fi
    dpkg-deb -x "$new"/*.deb "$new/root"
    busybox depmod -b "$new/root" "$(ls "$new/root/lib/modules")"
    rm -rf "$cache/lib"
    mv "$new/root/lib" "$cache/lib"
    mv "$new"/root/boot/vmlinuz-* "$cache/vmlinuz"
    rm -rf "$new"
}

# A program and all that it loads, at the same places.
give() {
    local file
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+'); do
        mkdir -p "$work/root$(dirname "$file")"
        cp -L "$file" "$work/root$file"
    done
}

root_file_system() {
    local program file base
    mkdir -p "$work/root"/{bin,sbin,dev,etc,files,lib,proc,root,run,sys,tmp,usr/bin,usr/sbin,var}
    cp -L "$(command -v busybox)" "$work/root/bin/busybox"
    for program in $(busybox --list); do
        [ "$program" = busybox ] || ln -sf busybox "$work/root/bin/$program"
    done
    # A shell that has no programs of its own, and what the tests look with, which comes before busybox's.
    ln -sf "$(command -v dash)" "$work/root/bin/sh"
    for program in dash ip bridge nft conntrack curl jq nsenter unshare sysctl mount umount perl; do
        give "$(command -v "$program")"
    done
    base=$(find /usr/lib -maxdepth 2 -name perl-base | head -n1)
    mkdir -p "$work/root$(dirname "$base")"
    cp -a "$base" "$work/root$base"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$work/root/etc/passwd"
    printf 'root:x:0:\n' >"$work/root/etc/group"
    printf '127.0.0.1 localhost\n' >"$work/root/etc/hosts"
    : >"$work/root/etc/resolv.conf"
    ln -s /bin/busybox "$work/root/sbin/modprobe"
    cp -a "$cache/lib/modules" "$work/root/lib/modules"
    cp "$1" "$work/root/script"
    shift
    for file in "$@"; do
        for loaded in $(ldd "$file" 2>/dev/null | grep -oE '/[^ ]+'); do give "$loaded"; done
        # Symbols are most of a program that was built for debugging.
        strip -o "$work/root/files/$(basename "$file")" "$file" 2>/dev/null ||
            cp -L "$file" "$work/root/files/$(basename "$file")"
    done
    # A container's root cannot be changed from the mount that a kernel unpacks its first files to, so that is seen
    # by another one.
    cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount --bind / /root
cd /root
/bin/busybox mount --move . /
exec /bin/busybox chroot . /start
INIT
    cat >"$work/root/start" <<'START'
#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox mount -t tmpfs tmpfs /dev/shm
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in overlay virtio_pci virtio_console nf_tables; do modprobe $module; done
ip link set lo up
/bin/sh /script </dev/null >/dev/hvc0 2>&1
echo "vm: exit status $?" >/dev/hvc0
sync
poweroff -f
START
    chmod 755 "$work/root/init" "$work/root/start"
    (cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"
}

kernel
root_file_system "$@"
# Its own messages go to a serial line, which is shown if it does not get far.
status=0
timeout "$((limit * 60))" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nodefaults -no-reboot \
    -display none -kernel "$cache/vmlinuz" -initrd "$work/initrd" \
    -append "console=ttyS0 panic=-1 quiet mitigations=off" -serial "file:$work/kernel" \
    -device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtconsole,chardev=out \
    </dev/null >"$work/output" || status=$?
tr -d '\r' <"$work/output" | sed '/^vm: exit status [0-9]*$/d'
told=$(tr -d '\r' <"$work/output" | sed -n 's/^vm: exit status \([0-9]*\)$/\1/p' | tail -n1)
if [ -z "$told" ]; then
    echo "vm: the machine ended without a word (qemu: $status, 124 is over $limit minutes); its kernel said:" >&2
    tail -n 40 "$work/kernel" >&2
    exit 1
fi
exit "$told"
