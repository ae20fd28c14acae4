#!/usr/bin/env bash
# system-image.sh DIRECTORY PACKAGE...: puts a Debian 13 for qemu there, for the tests of whole machines.
#
# systemd, a kernel of Debian's, cgroup v2 and nothing else but the packages, containerd and an agent
# that carries out what the tests want (qemu-guest-agent). It is never written to: each machine has
# a layer of its own over it. On Debian the packages come from this machine's own sources with the
# release's name replaced, elsewhere from Debian's.
#
#   DIRECTORY/root.img          its disk
#   DIRECTORY/vmlinuz, initrd   what to boot
#   DIRECTORY/key               what all this was made from
set -euo pipefail
export LC_ALL=C.UTF-8

RELEASE=trixie
# systemd and a kernel; e2fsprogs repairs the disk after a hard reset; dbus is what runc tells
# systemd of its cgroups with; python3-venv, criu and pycriu are what `make setup` would install.
SYSTEM=(systemd systemd-sysv dbus udev kmod procps linux-image-cloud-amd64 initramfs-tools e2fsprogs
    qemu-guest-agent python3 python3-venv criu python3-pycriu containerd containernetworking-plugins)
# MiB, most of it a hole.
SIZE=6144

die() {
    echo "system-image: $*" >&2
    exit 1
}

write_debian_sources() { # into $work/sources
    if [[ $ID == debian ]]; then
        write_sources "$RELEASE" "$work/sources"
        find "$work/sources" -empty -type f -delete
    else
        printf '%s\n' 'Types: deb' 'URIs: http://deb.debian.org/debian' \
            "Suites: $RELEASE $RELEASE-updates" 'Components: main' \
            'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$work/sources/debian.sources"
    fi
}

build() { # DIRECTORY PACKAGE...
    local target=$1 packages
    shift
    packages=$(printf '%s,' "${SYSTEM[@]}" "$@")
    mmdebstrap --quiet --variant=apt --aptopt='APT::Install-Recommends "false"' \
        --include="${packages%,}" "$RELEASE" "$work/root" "$work"/sources/*
    # What it has of this machine: name, resolver, sources.
    rm -rf "$work"/root/etc/{hostname,resolv.conf,apt/sources.list,apt/sources.list.d}
    # There is no network; containerd copies this one into each sandbox.
    : >"$work/root/etc/resolv.conf"
    mkdir "$work/root/etc/apt/sources.list.d"
    cp "$work"/root/boot/vmlinuz-* "$target/vmlinuz"
    cp "$work"/root/boot/initrd.img-* "$target/initrd"
    mke2fs -q -t ext4 -L root -d "$work/root" "$target/root.img" "${SIZE}M"
}

[[ $# -ge 1 ]] || die "usage: system-image.sh DIRECTORY PACKAGE..."
[[ $(dpkg --print-architecture) == amd64 ]] || die "it is for machines of x86-64 only"
directory=$1
shift
key=$(printf '%s\n' "$@" | cat - "${BASH_SOURCE[0]}" | sha256sum)
[[ $(cat "$directory/key" 2>/dev/null) == "$key" ]] && exit
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck source=deploy/other-release.sh
. "$(dirname "${BASH_SOURCE[0]}")/other-release.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$directory.new"' EXIT
mkdir -p "$work/sources"
write_debian_sources
rm -rf "$directory.new"
mkdir -p "$directory.new"
build "$directory.new" "$@"
echo "$key" >"$directory.new/key"
# A machine that runs on the old one keeps its file open.
rm -rf "$directory"
mv "$directory.new" "$directory"
