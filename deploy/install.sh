#!/usr/bin/env bash
# Installs this checkout as services, or removes it again.
#
#   deploy/install.sh install
#   deploy/install.sh uninstall
#
#   PREFIX   where the program goes; default /opt/checkpoint-agent
#   DESTDIR  put before every path, for packages; then systemd is not told
#   RESTORE_SOCKET  where checkpoint-runc asks the agent, `[restore] socket` of its configuration
#
# As often as you like: the program is replaced as a whole, configuration is never overwritten.
# `deploy/setup.sh run` has to have been there before (`make install` sees to it). Neither service is
# enabled or started.
#
#   PREFIX/bin/checkpoint-agent               the command
#   PREFIX/bin/checkpoint-runc                what a container engine runs in runc's place
#   PREFIX/venv, PREFIX/criu, PREFIX/pycriu   what it stands on
#   /etc/checkpoint-agent/config.toml         configuration
#   /etc/checkpoint-agent/env, api-env        secrets (0600), of each service
#   /etc/systemd/system/checkpoint-agent.service, checkpoint-agent-api.service
set -euo pipefail
export LC_ALL=C.UTF-8 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

cd "$(dirname "${BASH_SOURCE[0]}")/.."
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/checkpoint-agent}
RESTORE_SOCKET=${RESTORE_SOCKET:-/run/checkpoint-agent/restore.sock}
PROGRAM=$DESTDIR$PREFIX
CONFIG=$DESTDIR/etc/checkpoint-agent
UNITS=$DESTDIR/etc/systemd/system
NAMES=(checkpoint-agent checkpoint-agent-api)

die() {
    echo "install: $*" >&2
    exit 1
}

check_prefix() { # for $1; it is removed as a whole, so it had better be a folder of our own
    [[ $PREFIX == /*/* && $PREFIX != */ && $PREFIX =~ ^[A-Za-z0-9._/-]+$ && $PREFIX != *..* ]] ||
        die "PREFIX must be an absolute path of at least two plain names, like /opt/checkpoint-agent"
    [[ ! -L $PROGRAM/current ]] ||
        die "$PROGRAM holds the agent of a DaemonSet, and a node has one agent: docs/kubernetes.md"
    [[ ! -e $PROGRAM || -e $PROGRAM/.checkpoint-agent || ($1 == install && -z $(ls -A "$PROGRAM")) ]] ||
        die "$PROGRAM is there already and not from here: choose another PREFIX, or move it away"
}

lock() { # PLACE, where the prefix is, against another of these; and removes what a killed one left
    exec 9<"$1"
    flock 9
    rm -rf "$1"/.checkpoint-agent.*
}

build() { # into $1, which becomes the prefix
    local new=$1 python=$1/venv/bin/python packages
    touch "$new/.checkpoint-agent"
    .venv/bin/python -m venv "$new/venv"
    "$python" -m pip install --quiet --no-compile --require-hashes -r deploy/requirements.lock
    # From a copy: a build leaves things behind, and takes up what an earlier one has left.
    mkdir "$new/source"
    cp -r agent pyproject.toml README.md LICENSE "$new/source"
    "$python" -m pip install --quiet --no-compile --no-deps --no-build-isolation "$new/source"
    rm -r "$new/source"
    # For tracebacks, with the paths as they will be.
    "$python" -m compileall -q -s "$new" -p "$PREFIX" "$new/venv/lib"
    cp -a .tools/criu "$new/criu"
    mkdir "$new/pycriu"
    # Through links: the package may be a link into the bundle or to the system's own.
    cp -rL .tools/pycriu/pycriu "$new/pycriu/pycriu"
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PREFIX/pycriu" >"$packages/checkpoint-agent-pycriu.pth"
    # A venv knows its own path: into its scripts it wrote the one where it was built.
    grep -rlIZ --exclude-dir=site-packages "$new/venv" "$new/venv" |
        xargs -0r sed -i "s,$new/venv,$PREFIX/venv,g"
    # As they lie here: they point to each other.
    install -D -m 644 -t "$new/share/docs" docs/*.md
    install -D -m 644 -t "$new/share/proto" proto/*.md
    mkdir "$new/bin"
    cat >"$new/bin/checkpoint-agent" <<END
#!/bin/sh
# A CRIU that the environment names goes before the one that was installed.
: "\${CHECKPOINT_AGENT_CRIU:=$PREFIX/criu/bin/criu}"
export CHECKPOINT_AGENT_CRIU
exec "$PREFIX/venv/bin/python" -m agent "\$@"
END
    # With the paths as they will be.
    "$python" -I -c '
import sys
from pathlib import Path
from agent.host.checkpoint_runc import install_wrapper
path, socket, python, packages = map(Path, sys.argv[1:])
install_wrapper(path, socket=socket, python=python, package_parent=packages)
' "$new/bin/checkpoint-runc" "$RESTORE_SOCKET" "$PREFIX/venv/bin/python" "$PREFIX${packages#"$new"}"
    chmod -R go+rX "$new"
    chmod 755 "$new" "$new/bin/checkpoint-agent"
}

keep() { # FILE TARGET MODE: unless there is one already
    [[ -e $2 ]] || install -m "$3" "$1" "$2"
}

tell_systemd() {
    [[ -z $DESTDIR && -d /run/systemd/system ]] || return 0
    systemctl "$@"
}

run_install() {
    [[ -x .tools/criu/bin/criu && -x .venv/bin/python ]] || die "run \`make setup\` first"
    local place new name
    place=$(dirname "$(realpath -m "$PROGRAM")")
    mkdir -p "$place" "$UNITS"
    lock "$place"
    # Beside its place, so that the old one works until the new one is whole.
    new=$(mktemp -d "$place/.checkpoint-agent.XXXXXX")
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -rf '$new'" EXIT
    build "$new"
    if [[ -e $PROGRAM ]]; then
        mv -T "$PROGRAM" "$new.old"
    fi
    mv -T "$new" "$PROGRAM"
    rm -rf "$new.old"
    # Not only for root, whatever its umask: the API is not.
    [[ -d $CONFIG ]] || install -d -m 755 "$CONFIG"
    keep systemd/config.toml "$CONFIG/config.toml" 644
    keep systemd/env "$CONFIG/env" 600
    keep systemd/api-env "$CONFIG/api-env" 600
    for name in "${NAMES[@]}"; do
        sed "s,/opt/checkpoint-agent,$PREFIX,g" "systemd/$name.service" >"$UNITS/$name.service"
        chmod 644 "$UNITS/$name.service"
    done
    tell_systemd daemon-reload
    echo "install: $PREFIX is ready. Configure /etc/checkpoint-agent/config.toml, then, on every node"
    echo "    systemctl enable --now checkpoint-agent        (after an update: systemctl restart)"
    echo "and where the HTTP API is to be"
    echo "    systemctl enable --now checkpoint-agent-api"
    echo "The command for people is $PREFIX/bin/checkpoint-agent; put $PREFIX/bin into PATH."
}

run_uninstall() {
    local name place
    place=$(dirname "$(realpath -m "$PROGRAM")")
    [[ ! -d $place ]] || lock "$place"
    for name in "${NAMES[@]}"; do
        [[ -e $UNITS/$name.service ]] || continue
        tell_systemd disable --now "$name"
        rm -f "$UNITS/$name.service"
        tell_systemd daemon-reload
    done
    rm -rf "$PROGRAM"
    echo "install: removed. /etc/checkpoint-agent, /var/lib/checkpoint-agent (checkpoints) and" \
        "/var/lib/checkpoint-agent-api (actions) stay."
}

main() {
    [[ -n $DESTDIR ]] || ((EUID == 0)) || die "root is needed"
    check_prefix "${1:-}"
    case ${1:-} in
    install) run_install ;;
    uninstall) run_uninstall ;;
    *) die "usage: deploy/install.sh install|uninstall" ;;
    esac
}

main "$@"
