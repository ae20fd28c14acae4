#!/usr/bin/env bash
# cri-api.sh DIRECTORY: puts the definition of the container runtime interface, api.proto, there.
#
# Tests speak it to containerd. It is in the package golang-github-kubernetes-cri-api-dev, which is
# not installed: it would bring half of Go. Where this release has no such package, a newer one's is
# taken, from this machine's own sources with the release's name replaced; apt checks its signature.
set -euo pipefail
export LC_ALL=C.UTF-8

PACKAGE=golang-github-kubernetes-cri-api-dev
FILE=usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto

die() {
    echo "cri-api: $*" >&2
    exit 1
}

newer_release() { # one that has the package, for this machine's distribution
    case $ID in
    debian) echo trixie ;;
    ubuntu) echo resolute ;;
    *) die "$PACKAGE is not known for '$ID'. Put Kubernetes' api.proto (v1) into $target yourself." ;;
    esac
}

fetch() { # the package into $work
    local release
    (cd "$work" && apt-get -o APT::Sandbox::User=root download "$PACKAGE") && return
    release=$(newer_release)
    use_release "$release"
    (cd "$work" && private_apt apt-get download "$PACKAGE") ||
        die "this machine's package sources have no $PACKAGE for release '$release'." \
            "Check the network, then try again."
}

[[ $# -eq 1 ]] || die "usage: cri-api.sh DIRECTORY"
target=$1
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck source=deploy/other-release.sh
. "$(dirname "${BASH_SOURCE[0]}")/other-release.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch
dpkg-deb --fsys-tarfile "$work/$PACKAGE"_*.deb | tar -xO "./$FILE" >"$work/api.proto"
mkdir -p "$target"
mv "$work/api.proto" "$target/api.proto.new"
mv "$target/api.proto.new" "$target/api.proto"
