#!/bin/sh
# Removes from the node what install.sh has put there: in the init container's place, in the same
# DaemonSet (docs/kubernetes.md). kubelet may run it again, after one that was done or cut short.
# Checkpoints (/var/lib/checkpoint-agent) stay.
set -eu

bundle=$(cd -P "${0%/*}/.." && pwd -P)
PATH=$bundle/node/bin:${PATH:-/bin}
prefix=${PREFIX:-/opt/checkpoint-agent}

for each in "$prefix/current" "$prefix"/*; do
    [ -e "$each/.checkpoint-agent" ] || continue
    nsenter -t "${NODE_PID:-1}" -m -F -- "$each/bin/python" -I "$each/node/containerd.py" remove
    break
done
rm -f "$prefix/bin" "$prefix/current" "$prefix/previous"
rm -rf "$prefix"/.copy.*
for each in "$prefix"/*/.checkpoint-agent; do
    [ -e "$each" ] || continue
    # Out of sight first: what is half removed would not be known for one of ours.
    mv -T "${each%/.checkpoint-agent}" "$prefix/.copy.gone"
    rm -rf "$prefix/.copy.gone"
done
