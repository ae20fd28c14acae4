#!/usr/bin/env bash
# podman.sh PREFIX: puts Podman into PREFIX, for tests of archives that go to it and come from it.
#
# It is not installed: its packages would bring networks and a configuration to the system, and newer
# versions of others. What it needs that is not here is unpacked beside it; apt checks the signatures.
#
#   PREFIX/bin/podman, PREFIX/bin/conmon    for PATH; the first one starts with its own libraries
#
# Exits with 3 where there is no such package.
set -euo pipefail
export LC_ALL=C.UTF-8

# shellcheck source=deploy/test-tool.sh
. "$(dirname "${BASH_SOURCE[0]}")/test-tool.sh"
begin "$@"
mkdir -p "$work/archives/partial"

# As if to install it, so that what is here already is not fetched.
apt-get -y -o APT::Sandbox::User=root -o Dir::Cache::archives="$work/archives" \
    -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o APT::Install-Recommends=false install --download-only podman ||
    give_up "this machine's package sources have none."
for package in "$work"/archives/{podman,conmon,lib*}_*.deb; do
    [[ -e $package ]] && dpkg-deb -x "$package" "$work/unpacked"
done
mkdir "$prefix.new/lib"
cp "$work/unpacked/usr/bin/podman" "$prefix.new/podman"
if [[ -e $work/unpacked/usr/bin/conmon ]]; then
    cp "$work/unpacked/usr/bin/conmon" "$prefix.new/bin/"
fi
find "$work/unpacked" -name 'lib*.so.*' -exec cp -P {} "$prefix.new/lib/" \;
cat >"$prefix.new/bin/podman" <<'STARTER'
#!/bin/sh
root=${0%/*}/..
export LD_LIBRARY_PATH="$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$root/podman" "$@"
STARTER
chmod 755 "$prefix.new/bin/podman"
"$prefix.new/bin/podman" --version
finish
