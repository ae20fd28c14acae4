#!/usr/bin/env bash
# kubectl.sh PREFIX: puts Kubernetes' client into PREFIX, which has kustomize in it: what renders
# deploy/kubernetes for checks and tests.
#
# It is in Debian since 13, and a program that needs nothing but a C library, so older releases take
# that one: from this machine's own sources with the release's name replaced; apt checks its signature.
#
#   PREFIX/bin/kubectl
#
# Exits with 3 where there is no such package.
set -euo pipefail
export LC_ALL=C.UTF-8

NO_PACKAGE=3

give_up() {
    echo "kubectl: $*" >&2
    exit "$NO_PACKAGE"
}

[[ $# -eq 1 ]] || {
    echo "usage: kubectl.sh PREFIX" >&2
    exit 2
}
prefix=$1
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck source=deploy/other-release.sh
. "$(dirname "${BASH_SOURCE[0]}")/other-release.sh"
case $ID in
debian) release=trixie ;;
ubuntu) release=resolute ;;
*) give_up "it is not known for '$ID'." ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work" "$prefix.new"' EXIT

write_sources "$release" "$work/sources"
mkdir -p "$work"/{state,lists/partial,cache/archives/partial}
: >"$work/status"
# One broken source does not matter while another has the package: what counts comes next.
private_apt apt-get update || true
(cd "$work" && private_apt apt-get download kubectl) ||
    give_up "this machine's package sources have none for release '$release'."
rm -rf "$prefix.new"
mkdir -p "$prefix.new/bin"
dpkg-deb --fsys-tarfile "$work"/kubectl_*.deb | tar -xO ./usr/bin/kubectl >"$prefix.new/bin/kubectl"
chmod 755 "$prefix.new/bin/kubectl"
"$prefix.new/bin/kubectl" kustomize --help >/dev/null
rm -rf "$prefix"
mv "$prefix.new" "$prefix"
