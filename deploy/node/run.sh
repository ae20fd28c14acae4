#!/bin/sh
# The agent's container: runs the daemon among the node's own files and mounts, as systemd would.
#
# What install.sh has put at PREFIX is run, of this image's version. The container is privileged and
# sees the node's processes (hostPID). Its network stays the pod's; what has to be in the node's,
# runc and CRIU, enters that by itself (daemon.sh). Every step replaces the one before, so
# that what kubelet signals is the shell that waits for the daemon.
set -eu

bundle=$(cd -P "${0%/*}/.." && pwd -P)
PATH=$bundle/node/bin:${PATH:-/bin}
here=${PREFIX:-/opt/checkpoint-agent}/$(cat "$bundle/.checkpoint-agent")

# The pod's names and servers, for the other side; kubelet writes both once.
exec 3</etc/resolv.conf 4</etc/hosts
# A copy of the node's mounts: what is mounted there later appears here, and what is mounted here
# stays here.
exec nsenter -t "${NODE_PID:-1}" -m -u -i -F -- "$here/busybox" unshare --mount --propagation slave -- \
    "$here/busybox" sh "$here/node/daemon.sh" "$@"
