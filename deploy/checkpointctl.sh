#!/usr/bin/env bash
# checkpointctl.sh PREFIX: puts checkpointctl into PREFIX, the tool that shows what is in a container's
# checkpoint archive. Only tests use it.
#
# It is in Debian since 13. On an older release it is taken from there, with the C library and the
# loader that it was built for: nothing in PREFIX touches the system. The packages come from this
# machine's own sources with the release's name replaced, and apt checks their signatures.
#
#   PREFIX/bin/checkpointctl    starts it
#
# Exits with 3 where there is no such package.
set -euo pipefail
export LC_ALL=C.UTF-8

NO_PACKAGE=3

give_up() {
    echo "checkpointctl: $*" >&2
    exit "$NO_PACKAGE"
}

[[ $# -eq 1 ]] || {
    echo "usage: checkpointctl.sh PREFIX" >&2
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
private_apt apt-get install -y --download-only checkpointctl ||
    give_up "this machine's package sources have none for release '$release'."
rm -rf "$prefix.new"
mkdir -p "$prefix.new/bin"
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$work/unpacked"
done
loader=$(find "$work/unpacked" -name 'ld-linux*.so.*' -type f -print -quit)
library=$(find "$work/unpacked" -name libc.so.6 -print -quit)
cp "$work/unpacked/usr/bin/checkpointctl" "$prefix.new/checkpointctl"
cp "$loader" "$library" "$prefix.new/"
cat >"$prefix.new/bin/checkpointctl" <<STARTER
#!/bin/sh
# Starts this checkpointctl with the loader and C library that it was built for.
root=\${0%/*}/..
exec "\$root/${loader##*/}" --library-path "\$root" --argv0 checkpointctl "\$root/checkpointctl" "\$@"
STARTER
chmod 755 "$prefix.new/bin/checkpointctl"
"$prefix.new/bin/checkpointctl" --help >/dev/null
rm -rf "$prefix"
mv "$prefix.new" "$prefix"
