#!/bin/sh
# Removes from the node what install.sh has put there: run in a pod like the agent's, after the
# DaemonSet is gone. Checkpoints (/var/lib/checkpoint-agent) stay.
set -eu

bundle=$(cd -P "${0%/*}/.." && pwd -P)
PATH=$bundle/node/bin:${PATH:-/bin}
prefix=${PREFIX:-/opt/checkpoint-agent}
here=$prefix/$(readlink "$prefix/current")

nsenter -t "${NODE_PID:-1}" -m -F -- "$here/bin/python" -I "$here/node/containerd.py" remove
rm -f "$prefix/bin" "$prefix/current" "$prefix/previous"
for each in "$prefix"/*/.checkpoint-agent; do
    rm -rf "${each%/.checkpoint-agent}"
done
