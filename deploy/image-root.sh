#!/usr/bin/env bash
# image-root.sh BUNDLE ROOT: the root filesystem of the container image, from deploy/host-bundle.sh's
# result. Nothing in it but that, a shell, and the few files that programs expect; deploy/Dockerfile
# and the tests make the same one.
set -euo pipefail

[[ $# -eq 2 && -e $1/.checkpoint-agent ]] || {
    echo "usage: image-root.sh BUNDLE ROOT (deploy/host-bundle.sh makes BUNDLE)" >&2
    exit 1
}
bundle=$1 root=$2

mkdir -p "$root"/{bin,dev,etc/ssl/certs,proc,root,run,sys,usr/bin,usr/lib,var}
install -d -m 1777 "$root/tmp" "$root/var/tmp"
# Links where they can be: a test's root is made in no time.
cp -al "$bundle" "$root/usr/lib/checkpoint-agent" 2>/dev/null ||
    { rm -rf "$root/usr/lib/checkpoint-agent" && cp -a "$bundle" "$root/usr/lib/checkpoint-agent"; }
ln -s ../lib/checkpoint-agent/bin/checkpoint-agent "$root/usr/bin/checkpoint-agent"
for applet in $("$bundle/busybox" --list); do
    ln -s /usr/lib/checkpoint-agent/busybox "$root/bin/$applet"
done
ln -s /usr/lib/checkpoint-agent/share/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# 65532 is who the API runs as; the number counts, the name is for people.
printf '%s\n' root:x:0:0:root:/root:/bin/sh checkpoint-agent:x:65532:65532::/tmp:/bin/sh \
    >"$root/etc/passwd"
printf '%s\n' root:x:0: checkpoint-agent:x:65532: >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
