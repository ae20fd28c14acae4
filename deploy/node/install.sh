#!/bin/sh
# The init container: puts this image's agent on the node, and tells containerd of checkpoint-runc.
#
# PREFIX (default /opt/checkpoint-agent) is the same directory here and on the node, by a hostPath
# volume. The container is privileged and sees the node's processes (hostPID); NODE_PID is one that
# has the node's namespaces, its first process as a rule.
#
#   PREFIX/VERSION             one directory for each version, whole or not there; two are kept
#   PREFIX/current, previous   links to two of them; the first is switched in one step
#   PREFIX/bin                 link to current/bin: what containerd and people start
set -eu

bundle=$(cd -P "${0%/*}/.." && pwd -P)
PATH=$bundle/node/bin:${PATH:-/bin}
prefix=${PREFIX:-/opt/checkpoint-agent}
socket=${RESTORE_SOCKET:-/run/checkpoint-agent/restore.sock}
version=$(cat "$bundle/.checkpoint-agent")

say() {
    echo "install: $*" >&2
}

point() { # LINK TARGET: in one step, so that whoever looks sees the old one or the new one
    ln -sfn "$2" "$prefix/.$1.new"
    mv -fT "$prefix/.$1.new" "$prefix/$1"
}

place() { # this version's directory, whole or not at all
    rm -rf "$prefix"/.copy.*
    [ ! -e "$prefix/$version/.checkpoint-agent" ] || return 0
    say "copying $version to $prefix"
    if ! cp -a "$bundle" "$prefix/.copy.$$"; then
        rm -rf "$prefix"/.copy.*
        say "$prefix cannot be written to or is full; it needs 250 MB for each of two versions."
        exit 1
    fi
    # Of its file system, which others write to as well, but not of all others.
    sync -f "$prefix/.copy.$$"
    # What is there is what was left of one.
    rm -rf "${prefix:?}/$version"
    mv -T "$prefix/.copy.$$" "$prefix/$version"
}

switch() { # to this version
    now=$(readlink "$prefix/current" || true)
    [ "$now" = "$version" ] || [ -z "$now" ] || point previous "$now"
    point current "$version"
    point bin current/bin
}

forget() { # every other version
    now=$(readlink "$prefix/previous" || true)
    for each in "$prefix"/*/.checkpoint-agent; do
        each=${each%/.checkpoint-agent}
        [ -L "$each" ] || [ "${each##*/}" = "$version" ] || [ "${each##*/}" = "$now" ] || rm -rf "$each"
    done
}

if [ -e "$prefix/.checkpoint-agent" ]; then
    say "$prefix holds an agent of \`make install\`, which systemd runs. Remove that one first" \
        "(make uninstall), or label this node so that the DaemonSet leaves it alone."
    exit 1
fi
place
# With the paths as they are on the node. It stays with its own version.
"$prefix/$version/bin/python" -I -c '
import pathlib, sys
from agent.host.checkpoint_runc import install_wrapper
install_wrapper(pathlib.Path(sys.argv[1]), socket=pathlib.Path(sys.argv[2]))
' "$prefix/$version/bin/checkpoint-runc" "$socket"
switch
forget
say "$prefix/current is $version"
# As the node sees it from here on: its containerd, its configuration, its systemd.
exec nsenter -t "${NODE_PID:-1}" -m -F -- "$prefix/$version/bin/python" -I "$prefix/$version/node/containerd.py" \
    add "$prefix/bin/checkpoint-runc"
