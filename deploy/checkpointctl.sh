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

# shellcheck source=deploy/test-tool.sh
. "$(dirname "${BASH_SOURCE[0]}")/test-tool.sh"
begin "$@"
use_release_with_tools
private_apt apt-get install -y --download-only checkpointctl || none_there
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
finish
