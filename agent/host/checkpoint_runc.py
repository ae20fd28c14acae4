"""``checkpoint-runc``: the OCI runtime that containerd and CRI-O run in runc's place.

A script for sh, because an engine runs its runtime for everything, twice a second for some pods'
probes: dash starts in 1 ms, Python in 10.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from agent.host.wrapper.attempt import MARKER

# An update replaces an agent in about five seconds.
PATIENCE = 10.0

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent.parent

# Read by dash and by busybox's ash. Options of runc that take a value are named, so that no value
# is taken for a subcommand; those of `start` take none.
_SCRIPT = """#!/bin/sh
# Written by checkpoint-agent. Hands everything over to runc but `create` of a container that is to
# come back from a checkpoint, and `start` of one that has.
runc=${{CHECKPOINT_AGENT_RUNC:-{runc}}}
root=/run/runc
command='' bundle=. container='' expected=''
for word do
    case $expected in
    root) root=$word; expected=''; continue ;;
    bundle) bundle=$word; expected=''; continue ;;
    other) expected=''; continue ;;
    esac
    case $command:$word in
    :--root|:-root) expected=root ;;
    :--root=*|:-root=*) root=${{word#*=}} ;;
    :--log|:-log|:--log-format|:-log-format|:--criu|:-criu|:--rootless|:-rootless) expected=other ;;
    :-*) ;;
    :create|:start) command=$word ;;
    :*) break ;;
    create:--bundle|create:-bundle|create:-b|create:--b) expected=bundle ;;
    create:--bundle=*|create:-bundle=*|create:-b=*|create:--b=*) bundle=${{word#*=}} ;;
    create:--console-socket|create:-console-socket) expected=other ;;
    create:--pid-file|create:-pid-file|create:--preserve-fds) expected=other ;;
    start:-*) ;;
    start:*) container=$word ;;
    esac
done
case $command in
start)
    [ -n "$container" ] && [ -e "$root/$container/{marker}" ] && exit 0 ;;
esac
if [ -z "$runc" ]; then
    set -f
    IFS=:
    for directory in $PATH; do
        if [ -x "$directory/runc" ] && ! [ "$directory/runc" -ef "$0" ]; then
            runc=$directory/runc
            break
        fi
    done
    unset IFS
    if [ -z "$runc" ]; then
        # Not left to exec, which may find this very script, again and again.
        echo "checkpoint-runc: no runc in PATH; CHECKPOINT_AGENT_RUNC can name it" >&2
        exit 127
    fi
fi
case $command in
create)
    config=$bundle/config.json
    if grep -q -e CHECKPOINT_RESTORE= -e checkpoint-agent/restore -- "$config" 2>/dev/null; then
        exec {python} -I -S {start} "$runc" {socket} {patience} "$@"
    fi ;;
esac
exec "$runc" "$@"
"""


def install_wrapper(
    path: Path,
    *,
    socket: Path,
    runc: Path | None = None,
    python: Path | None = None,
    package_parent: Path = _PACKAGE_PARENT,
    patience: float = PATIENCE,
) -> None:
    """Put ``checkpoint-runc`` at ``path``, in place of an older one. Raises OSError.

    Args:
        socket: where the agent listens for it.
        runc: the real one; the engine's PATH decides when not given. CHECKPOINT_AGENT_RUNC in the
            engine's environment counts for more.
        python: what runs agent/host/wrapper, by its name on the machine it is for.
        package_parent: the directory that has the package ``agent`` there.
        patience: seconds that an agent which does not listen is waited for.
    """
    words = {
        "runc": runc or "",
        "python": python or sys.executable,
        "start": package_parent / "agent" / "host" / "wrapper" / "start.py",
        "socket": socket,
        "patience": patience,
    }
    quoted = {name: shlex.quote(str(word)) if str(word) else "" for name, word in words.items()}
    text = _SCRIPT.format(marker=MARKER, **quoted)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o755)
    # Renamed: the engine may be about to run it.
    new.rename(path)
