#!/usr/bin/env bash
# Makes a bare Debian or Ubuntu machine ready for this checkout.
#
#   deploy/setup.sh run     what the agent and the demo need
#   deploy/setup.sh test    the same, and what tests and checks need
#   deploy/setup.sh system  what the agent needs, and a virtual machine to install it in
#
# As root, without a question, and as often as you like: what is there already is left alone and
# then costs a second. Nothing outside the checkout is touched but the distribution's own packages,
# and the servers among them, which only tests use, are neither started nor enabled.
#
#   .tools/criu/bin/criu   CRIU: the distribution's, or a private one (deploy/criu-bundle.sh)
#   .tools/pycriu/         its Python package, on the virtual environment's path
#   .tools/podman/, .tools/checkpointctl/    what tests give archives to
#   .tools/kubectl/, .tools/host-bundle/     what renders the manifests, and runs in their image
#   .venv/                 the locked dependencies and the command checkpoint-agent
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1
export LC_ALL=C.UTF-8 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# criu, runc and iptables live in directories that a user's shell may not search.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
TOOLS=$ROOT/.tools
PYTHON=$ROOT/.venv/bin/python
LOG=$TOOLS/setup.log

MINIMUM_CRIU=4.1
# Since Linux 6.16 CRIU before 4.2 cannot dump any TCP socket: it asks every socket for an option
# (SO_PASSCRED) that only some have now.
if printf '%s\n' 6.16 "$(uname -r)" | sort -VC; then
    MINIMUM_CRIU=4.2
fi

# "package", or "package:command" or "package:/a/file's/pattern"; a command or file that is there
# already will do, whoever brought it (Docker's containerd.io, for one, brings runc and shuts out the
# package of that name).
# iproute2 and iptables: CRIU saves and locks a network namespace with them. gcc, mount and busybox:
# the demo compiles and packs a container of its own, and curl is what it asks for a checkpoint with.
RUN_PACKAGES=(ca-certificates make:make runc:runc iptables:iptables-restore iproute2:ip
    gcc:gcc libc6-dev mount:mount busybox-static curl:curl)
# redis is checkpointed; swift is a real S3 server; tar and zstd are what the benchmark compares with;
# containerd makes real pods, with a network of CNI's; PostgreSQL is the API's larger database, of
# any version, which Debian keeps out of PATH; a browser without a font shows boxes.
TEST_PACKAGES=(procps:ps redis-server:redis-server shellcheck:shellcheck zstd:zstd
    swift-proxy swift-account swift-container swift-object
    containerd:containerd containernetworking-plugins
    "postgresql:/usr/lib/postgresql/*/bin/initdb" fonts-dejavu-core)
# Build and run a whole machine, and hand this checkout in.
SYSTEM_PACKAGES=(mmdebstrap:mmdebstrap qemu-system-x86:qemu-system-x86_64 e2fsprogs:mke2fs git:git
    debian-archive-keyring)
# Opens the API's page. Ubuntu has it as a snap only, and apt at most a package that stands for that.
BROWSER=chromium:chromium

# shellcheck source=deploy/setup-lib.sh
. deploy/setup-lib.sh

find_python() { # the first Python >= 3.11 that can make virtual environments
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

setup_venv() {
    # One that was left half-made has a Python and no pip.
    if "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        { compgen -G '.venv/.setup-*' || "$PYTHON" -m pip --version; } >/dev/null 2>&1; then
        return
    fi
    find_python >/dev/null || install_packages python3 python3-venv
    local python
    python=$(find_python) ||
        die "Python >= 3.11 with venv is needed; python3 here is $(python3 --version 2>&1)." \
            "Install one that your distribution offers (apt-get install python3.11-venv), or" \
            "use Debian 12, Ubuntu 24.04 or newer."
    step "creating .venv with $python" "$python" -m venv --clear .venv
}

setup_python_packages() { # from lock $1; skipped when the very same were installed here before
    local lock=$1 stamp=.venv/.setup-${1##*/} key
    key=$(cat "$lock" pyproject.toml <(echo "$ROOT") <("$PYTHON" -V) | sha256sum)
    [[ -x .venv/bin/checkpoint-agent && $(cat "$stamp" 2>/dev/null) == "$key" ]] && return
    rm -f "$stamp"
    step "installing Python packages from $lock" \
        "$PYTHON" -m pip install --require-hashes -r "$lock" ||
        die "the Python packages could not be installed." \
            "Check the network and pip's configuration (pip config list), then try again."
    step "installing checkpoint-agent" \
        "$PYTHON" -m pip install --no-deps --no-build-isolation -e . ||
        die "checkpoint-agent itself could not be installed; $LOG says why."
    echo "$key" >"$stamp"
}

criu_is_new_enough() { # is program $1 a CRIU that starts and is not too old?
    local version
    version=$("$1" --version 2>/dev/null | awk '$1 == "Version:" { print $2 }') || return 1
    [[ -n $version ]] && printf '%s\n' "$MINIMUM_CRIU" "$version" | sort -VC
}

# CRIU ($1) and the folder of the package pycriu ($2) that belong to the system.
link_system_criu() {
    rm -rf "$TOOLS/criu" "$TOOLS/pycriu"
    mkdir -p "$TOOLS/criu/bin" "$TOOLS/pycriu"
    ln -s "$1" "$TOOLS/criu/bin/criu"
    ln -s "$2" "$TOOLS/pycriu/pycriu"
}

system_pycriu() { # where the system's own Python finds it
    local python find='import importlib.util as u; print(u.find_spec("pycriu").origin)' found
    for python in /usr/bin/python3 python3; do
        found=$("$python" -c "$find" 2>/dev/null) && dirname "$found" && return
    done
    return 1
}

setup_criu() {
    criu_is_new_enough "$TOOLS/criu/bin/criu" && [[ -e $TOOLS/pycriu/pycriu/__init__.py ]] && return
    local pycriu
    if ! criu_is_new_enough criu || ! system_pycriu >/dev/null; then
        refresh_lists
        if dpkg --compare-versions "$(candidate criu)" ge "$MINIMUM_CRIU"; then
            install_packages criu python3-pycriu
        fi
    fi
    if criu_is_new_enough criu && pycriu=$(system_pycriu); then
        link_system_criu "$(command -v criu)" "$pycriu"
        return
    fi
    step "fetching a private CRIU" deploy/criu-bundle.sh "$TOOLS/criu" ||
        die "$(grep '^criu-bundle:' "$LOG" | tail -n 1 || echo "CRIU could not be fetched; $LOG says why.")"
    rm -rf "$TOOLS/pycriu"
    mkdir -p "$TOOLS/pycriu"
    ln -s ../criu/usr/lib/python3/dist-packages/pycriu "$TOOLS/pycriu/pycriu"
}

setup_cri_api() { # what tests speak to containerd
    [[ -e $TOOLS/cri-api/api.proto ]] && return
    step "fetching the CRI's definition" deploy/cri-api.sh "$TOOLS/cri-api" ||
        die "$(grep '^cri-api:' "$LOG" | tail -n 1 || echo "It could not be fetched; $LOG says why.")"
}

# Tools that only tests of archives and manifests use; where a distribution has none, those tests are
# skipped.
setup_archive_tools() {
    local tool status
    for tool in checkpointctl podman kubectl; do
        [[ -x $TOOLS/$tool/bin/$tool ]] && continue
        compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || refresh_lists
        status=0
        step "fetching $tool" "deploy/$tool.sh" "$TOOLS/$tool" || status=$?
        ((status == 0)) || echo "setup: no $tool here: the tests that need it are skipped"
    done
}

setup_host_bundle() { # what the image consists of, but for the agent, which tests add to a copy
    local bundle=$TOOLS/host-bundle key
    key=$(cat deploy/{requirements.lock,host-bundle.sh,other-release.sh} \
        <("$TOOLS/criu/bin/criu" --version) | sha256sum)
    [[ -d $bundle && $(cat "$bundle.key" 2>/dev/null) == "$key" ]] && return
    step "building the image's runtime" deploy/host-bundle.sh runtime "$bundle" ||
        die "$(grep '^host-bundle:' "$LOG" | tail -n 1 || echo "It could not be built; $LOG says why.")"
    echo "$key" >"$bundle.key"
}

setup_system_image() { # the machine has no network: what `make setup` wants is there already
    step "building a Debian for qemu, unless it is there" \
        deploy/system-image.sh "$TOOLS/system/image" "${RUN_PACKAGES[@]%%:*}" ||
        die "$(grep '^system-image:' "$LOG" | tail -n 1 || echo "It could not be built; $LOG says why.")"
}

setup_browser() {
    is_installed "$BROWSER" && return
    compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || refresh_lists
    case $(candidate "${BROWSER%%:*}") in
    0 | *snap*) echo "setup: apt has no Chromium here: the tests that need a browser are skipped" ;;
    *) install_packages "$BROWSER" ;;
    esac
}

link_pycriu() { # puts .tools/pycriu on the virtual environment's path
    local packages
    packages=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$TOOLS/pycriu" >"$packages/checkpoint-agent-pycriu.pth"
}

# Each command starts in 0.7 s instead of 0.9 then, also where Python is told to write no bytecode.
compile_bytecode() {
    "$PYTHON" -m compileall -q agent "$TOOLS/pycriu/pycriu" >>"$LOG" 2>&1 || true
}

verify() {
    criu_is_new_enough "$TOOLS/criu/bin/criu" ||
        die "CRIU does not start: $("$TOOLS/criu/bin/criu" --version 2>&1 | head -n 1)"
    "$PYTHON" -c 'import pycriu, agent' 2>>"$LOG" ||
        die "pycriu or the agent cannot be imported; $LOG says why."
}

main() {
    local purpose=${1:-}
    case $purpose in
    run) set -- deploy/requirements.lock "${RUN_PACKAGES[@]}" ;;
    test) set -- deploy/requirements-dev.lock "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ;;
    system) set -- deploy/requirements.lock "${RUN_PACKAGES[@]}" "${SYSTEM_PACKAGES[@]}" ;;
    *) die "usage: deploy/setup.sh run|test|system" ;;
    esac
    local lock=$1
    shift
    { mkdir -p "$TOOLS" && : >>"$TOOLS/setup.lock"; } 2>/dev/null ||
        die "$ROOT cannot be written to by $(id -un): try again as root."
    exec 9>"$TOOLS/setup.lock"
    flock 9
    : >"$LOG"
    install_packages "$@"
    setup_venv
    setup_python_packages "$lock"
    setup_criu
    link_pycriu
    compile_bytecode
    if [[ $purpose == test ]]; then
        setup_cri_api
        setup_archive_tools
        setup_host_bundle
        setup_browser
    elif [[ $purpose == system ]]; then
        setup_cri_api
        setup_system_image
    fi
    verify
    echo "setup: ready ($("$TOOLS/criu/bin/criu" --version | awk '$1 == "Version:" { print "CRIU", $2 }')," \
        "$("$PYTHON" --version))"
}

main "$@"
