#!/bin/sh
# run.sh's other half, on the node: the daemon, and a thaw after it, however it ended.
set -u

root=$(cd -P "${0%/*}/.." && pwd -P)
PATH=$root/node/bin:${PATH:-/bin}
agent=$root/bin/checkpoint-agent

follows=
while read -r _ _ _ _ point _ kind _; do
    case "$point $kind" in '/ master:'*) follows=yes ;; esac
done </proc/self/mountinfo
[ -n "$follows" ] ||
    echo "run: the node's / is mounted private, not shared as systemd has it: what is mounted there" \
        "from now on, such as volumes in memory of new pods, is not seen by this agent" >&2

# In this mount namespace only.
files=$root/pod
mount -t tmpfs -o mode=755,size=1m tmpfs "$files"

# Names are the cluster's, not the node's, and found without the node's own plug-ins for its own C
# library. By a layer over all of /etc: a mount over a single file goes as soon as somebody on the node
# replaces that file by renaming, as DHCP clients and systemd-resolved do.
mkdir "$files/etc"
cat <&3 >"$files/etc/resolv.conf"
cat <&4 >"$files/etc/hosts"
echo 'hosts: files dns' >"$files/etc/nsswitch.conf"
if ! mount -t overlay -o "lowerdir=$files/etc:/etc" overlay /etc; then
    echo "run: no overlay over the node's /etc: when the node's resolver changes, the agent loses the" \
        "cluster's names until its pod is restarted" >&2
    for each in resolv.conf hosts nsswitch.conf; do
        [ ! -e "/etc/$each" ] || mount --bind "$files/etc/$each" "/etc/$each"
    done
fi
exec 3<&- 4<&-

in_node_network() { # NAME PROGRAM: a starter, also for whom the agent gives work outside
    cat >"$root/node/.$1" <<STARTER
#!/bin/sh
exec "$root/busybox" nsenter -t ${NODE_PID:-1} -n -F -- "$2" "\$@"
STARTER
    chmod 755 "$root/node/.$1"
    mv -f "$root/node/.$1" "$root/node/$1"
}

# As the node's own programs have it; k3s has its runc where nobody else looks.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
runc=${CHECKPOINT_AGENT_RUNC:-$(PATH=$PATH:/var/lib/rancher/k3s/data/current/bin command -v runc)}
# The daemon's network is its pod's. CRIU takes a network that is not its own for the container's:
# from the pod's it would try to dump the node's whole network with a container of hostNetwork.
if [ -n "$runc" ]; then
    in_node_network runc "$runc"
    export CHECKPOINT_AGENT_RUNC="$root/node/runc"
fi
in_node_network criu "${CHECKPOINT_AGENT_CRIU:-$root/bin/criu}"
export CHECKPOINT_AGENT_CRIU="$root/node/criu"
# gRPC's handlers around fork kill children under load.
export GRPC_ENABLE_FORK_SUPPORT=0
# A core file would hold the memory of other people's programs.
# shellcheck disable=SC3045 # busybox's shell has it
ulimit -c 0
umask 077

"$agent" daemon "$@" &
daemon=$!
# A second signal is passed on like the first: the daemon then hurries.
trap 'kill -TERM "$daemon"' TERM INT HUP
while :; do
    wait "$daemon"
    status=$?
    # Above 128 it may have been the wait that was interrupted.
    { [ "$status" -gt 128 ] && kill -0 "$daemon" 2>/dev/null; } || break
done
trap '' TERM INT HUP
# kubelet waits longer and longer before it starts a container again; nothing stays frozen till then.
"$agent" thaw --all
exit "$status"
