#!/usr/bin/env bash
# Builds a directory that holds the agent and everything it stands on, for hosts that have nothing:
#
#   deploy/host-bundle.sh runtime PREFIX   Python, the locked packages, CRIU, tar, iptables, busybox
#   deploy/host-bundle.sh agent PREFIX     puts the agent of this checkout into such a runtime
#
# (Two steps, because the first takes half a minute and only changes with the lock file.) PREFIX may
# be moved or copied to any Linux of this machine's architecture: of the host it needs a kernel, a
# /bin/sh and runc. Programs are started by sh scripts, with the loader and the C library that lie
# beside them; nothing of the host's own is touched or needed. The packages come from a fixed release,
# from this machine's own sources with the release's name replaced; apt checks their signatures.
#
#   PREFIX/bin/checkpoint-agent, criu     starters
#   PREFIX/bin/python                     likewise; what sys.executable is
#   PREFIX/node                           deploy/node, and the applets that those scripts are made of
#   PREFIX/criu                           deploy/criu-bundle.sh
#   PREFIX/tools/first                    before the host's own in PATH: GNU tar
#   PREFIX/tools/last                     for hosts without: iptables, ip and gzip, for CRIU; nsenter
#   PREFIX/native                         loader and libraries of all of these
#   PREFIX/lib, libexec, share            what is started, read and to be read
#   PREFIX/busybox                        static
#   PREFIX/pod                            empty; where node/daemon.sh keeps what is its pod's
#   PREFIX/.checkpoint-agent              the version, with a digest of what is here
#   PREFIX/.runtime                       the digest of the first step's part
set -euo pipefail
export LC_ALL=C.UTF-8 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PACKAGES=(python3 libstdc++6 tar busybox-static iptables iproute2 ca-certificates)
# With what CRIU starts: to lock the network, and to save and restore a network namespace.
IPTABLES=(iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore)
# What has libraries of its own, or lost a part here.
IMPORTS="grpc, kubernetes_asyncio, lz4, nats, obstore, pycriu, pynvml, sqlalchemy, ssl, zstandard"
# What the scripts in deploy/node are written with.
APPLETS=(cat chmod cp ln mkdir mount mv nsenter readlink rm sh sync unshare)

die() {
    echo "host-bundle: $*" >&2
    exit 1
}

python_release() { # whose Python every locked package has a wheel for
    # shellcheck source=/dev/null
    . /etc/os-release
    case $ID in
    debian) echo trixie ;;
    ubuntu) echo noble ;;
    *) die "built on Debian or Ubuntu only; what is built runs on any distribution" ;;
    esac
}

unpack_packages() { # and all they depend on, below $1
    local package
    use_release "$(python_release)"
    private_apt apt-get install -y --download-only "${PACKAGES[@]}" ||
        die "this machine's package sources do not have ${PACKAGES[*]}. Check the network."
    mkdir -p "$1"
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$1"
    done
}

write_program() { # FILE, its text from standard input
    cat >"$1"
    chmod 755 "$1"
}

# The start of every starter. The path is made real, so that a program that runs stays with its own
# version when links above it are switched to another.
# shellcheck disable=SC2016 # for the starter to expand
FIND_ROOT='#!/bin/sh
self=$0
[ -L "$self" ] && self=$(readlink -f "$self")
root=$(cd -P "${self%/*}/DEPTH" && pwd -P) || exit 127'

# The host's own iptables suits its kernel, so ours comes last; busybox's tar would not do at all.
# shellcheck disable=SC2016 # likewise
WITH_TOOLS='PATH=$root/tools/first:${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH="$PATH:$root/tools/last"'

write_starters() { # into $1; the Python's name is $2
    local name
    mkdir -p "$1"/{bin,tools/first,tools/last}
    write_program "$1/bin/python" <<STARTER
${FIND_ROOT/DEPTH/..}
# sys.executable and sys.prefix follow from argv[0]. Root's own ~/.local is nothing to rely on.
export PYTHONNOUSERSITE=1
exec "\$root/native/loader" --library-path "\$root/native" --argv0 "\$root/bin/python" \\
    "\$root/libexec/$2" "\$@"
STARTER
    write_program "$1/bin/checkpoint-agent" <<STARTER
${FIND_ROOT/DEPTH/..}
$WITH_TOOLS
# What the environment names goes before what is here.
export CHECKPOINT_AGENT_CRIU="\${CHECKPOINT_AGENT_CRIU:-\$root/bin/criu}"
export SSL_CERT_FILE="\${SSL_CERT_FILE:-\$root/share/ca-certificates.crt}"
exec "\$root/bin/python" -I -m agent "\$@"
STARTER
    # A container engine may be who starts it, whose PATH is the host's.
    write_program "$1/bin/criu" <<STARTER
${FIND_ROOT/DEPTH/..}
$WITH_TOOLS
exec "\$root/criu/bin/criu" "\$@"
STARTER
    write_tool "$1/tools/first/tar" tar
    # CRIU packs the content of a tmpfs with `tar --gzip`; the agent takes its locks back.
    ln -s ../../busybox "$1/tools/last/gzip"
    ln -s ../../busybox "$1/tools/last/nsenter"
    write_tool "$1/tools/last/ip" ip
    for name in "${IPTABLES[@]}"; do
        write_tool "$1/tools/last/$name" xtables-nft-multi
    done
}

write_tool() { # FILE PROGRAM
    write_program "$1" <<STARTER
${FIND_ROOT/DEPTH/../..}
export XTABLES_LIBDIR="\$root/native/xtables"
exec "\$root/native/loader" --library-path "\$root/native" --argv0 ${1##*/} "\$root/libexec/$2" "\$@"
STARTER
}

take_programs() { # from $1 into $2; the Python's name is $3
    local system=$1 bundle=$2 library
    mkdir -p "$bundle"/{libexec,native,lib,share/doc}
    cp "$system/usr/bin/$3" "$system/usr/bin/tar" "$system/usr/sbin/xtables-nft-multi" "$bundle/libexec"
    cp "$(find "$system" -path '*/bin/ip' -type f -print -quit)" "$bundle/libexec"
    cp "$system/usr/bin/busybox" "$bundle/busybox"
    library=$(find "$system/usr/lib" -path '*/xtables' -type d -print -quit)
    cp -r "$library" "$bundle/native/xtables"
    library=$(find "$system/usr/lib" -name 'ld-linux*.so.*' -print -quit)
    cp -L "$library" "$bundle/native/loader"
    cp -r "$system/usr/lib/$3" "$bundle/lib/$3"
    # What a program for people or a compiler would want.
    rm -rf "$bundle/lib/$3"/{config-*,pydoc_data,turtledemo,idlelib,ensurepip,venv,test,__phello__}
    rm -f "$bundle/lib/$3"/{EXTERNALLY-MANAGED,sitecustomize.py,turtle.py}
    rm -f "$bundle/lib/$3"/lib-dynload/{_curses,_dbm,_test,_xxtestfuzz,readline}*
    find "$bundle/lib/$3" -name __pycache__ -prune -exec rm -rf {} +
    cat "$system"/usr/share/ca-certificates/mozilla/*.crt >"$bundle/share/ca-certificates.crt"
}

install_packages() { # the locked ones into $1, for the Python named $2
    local packages=$1/lib/$2/dist-packages pip=.venv/bin/python
    [[ -x $pip ]] || pip=python3
    mkdir -p "$packages"
    "$pip" -m pip --python "$1/bin/python" install --quiet --no-compile --require-hashes \
        --target "$packages" -r deploy/requirements.lock
    # Of use only for a build, and for `checkpoint-agent dev`.
    (cd "$packages" && rm -rf setuptools* _distutils_hack pkg_resources distutils-precedence.pth \
        nats_server* bin)
    # Of NVIDIA's bindings the driver's are used; the others' are half of them.
    find "$packages/cuda/bindings" -name '*.so' ! -name '*driver*' ! -name '*utils*' \
        ! -name '_fast_enum*' -delete
    find "$packages" -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} +
    find "$packages" \( -name '*.pyi' -o -name '*.pyx' -o -name '*.px[di]' -o -name '*.[ch]' \) -delete
    ln -s "../../../criu/usr/lib/python3/dist-packages/pycriu" "$packages/pycriu"
}

take_libraries() { # that anything in $2 needs, from the packages below $1
    local system=$1 bundle=$2 directories file missing
    directories=$(find "$system" -name '*.so*' -printf '%h\n' | grep -v -e /python -e /xtables | sort -u | paste -sd:)
    while read -r file; do
        # As the loader itself resolves them, so nothing has to be known about any of them.
        "$bundle/native/loader" --library-path "$directories" --list "$file" 2>/dev/null
    done < <(find "$bundle/libexec" "$bundle/lib" "$bundle/native/xtables" -type f \
        \( -path '*/libexec/*' -o -name '*.so' -o -name '*.so.*' \)) |
        sort -u >"$work/needed"
    missing=$(awk '/not found/ { print $1 }' "$work/needed" | sort -u | paste -sd' ')
    [[ -z $missing ]] || die "no package brings $missing"
    awk -v top="$system/" 'index($3, top) == 1 { print $3 }' "$work/needed" | sort -u |
        xargs cp -L -t "$bundle/native"
    # Loaded by name, when it is needed: threads end with it.
    cp -L "$(find "$system" -name libgcc_s.so.1 -print -quit)" "$bundle/native"
}

strip_symbols() { # below $1: a fifth of all, mostly debugging information that wheels carry
    find "$1"/{libexec,lib,native} -type f \( -path '*/libexec/*' -o -name '*.so' -o -name '*.so.*' \) \
        -exec strip --strip-unneeded {} +
}

take_licences() { # of all packages, from $1 into $2
    find "$1/usr/share/doc" -name copyright -printf '%P\0' |
        tar -c -C "$1/usr/share/doc" --null -T - | tar -x -C "$2/share/doc"
}

compile() { # what is below $2, with $1's Python; the code then does not depend on files' times
    "$1/bin/python" -I -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$1" "$2"
}

build_runtime() { # into $1
    local new=$1 system=$work/system python
    unpack_packages "$system"
    python=$(basename "$(find "$system/usr/bin" -regex '.*/python3\.[0-9]+' -print -quit)")
    take_programs "$system" "$new" "$python"
    write_starters "$new" "$python"
    # For pip to start; what else is needed is known when its work is done.
    take_libraries "$system" "$new"
    install_packages "$new" "$python"
    take_libraries "$system" "$new"
    strip_symbols "$new"
    take_licences "$system" "$new"
    if [[ -d .tools/criu/usr ]]; then
        cp -a .tools/criu "$new/criu"
    else
        deploy/criu-bundle.sh "$new/criu"
    fi
    compile "$new" "$new/lib/$python"
    "$new/bin/python" -I -c "from cuda.bindings import driver; import $IMPORTS" ||
        die "the runtime does not work on this machine"
    # For everybody, whatever this shell's umask: the API is not root.
    chmod -R go+rX "$new"
    digest_of "$new" >"$new.digest"
    mv "$new.digest" "$new/.runtime"
}

add_agent() { # to $1
    local packages digest applet
    packages=$(echo "$1"/lib/python3.*/dist-packages)
    [[ -e $1/.runtime ]] || die "$1 is none of \`host-bundle.sh runtime\`"
    rm -rf "$packages/agent" "$1/.checkpoint-agent"
    cp -r agent "$packages/agent"
    rm -rf "$1/node"
    cp -r deploy/node "$1/node"
    mkdir -p "$1/node/bin" "$1/pod"
    for applet in "${APPLETS[@]}"; do
        ln -s ../../busybox "$1/node/bin/$applet"
    done
    find "$packages/agent" -name __pycache__ -prune -exec rm -rf {} +
    compile "$1" "$packages/agent"
    # Two builds of one version may differ, and a node keeps both.
    digest=$(digest_of "$packages/agent" "$1/node" "$1/.runtime")
    echo "$("$1/bin/python" -I -c 'import agent; print(agent.__version__)')-${digest:0:12}" \
        >"$1/.checkpoint-agent"
    chmod -R go+rX "$packages/agent" "$1/node" "$1/.checkpoint-agent"
}

digest_of() { # all files in these, in an order of their own
    find "$@" -type f -print0 | sort -z | xargs -0 cat | sha256sum
}

replace() { # $1 by $1.new
    rm -rf "$1.old"
    [[ ! -e $1 ]] || mv "$1" "$1.old"
    mv "$1.new" "$1"
    rm -rf "$1.old"
}

[[ $# -eq 2 ]] || die "usage: host-bundle.sh runtime|agent PREFIX"
command -v strip >/dev/null || die "strip is missing: apt-get install binutils"
prefix=$(realpath -m "$2")
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck source=deploy/other-release.sh
. deploy/other-release.sh
work=$(mktemp -d)
trap 'rm -rf "$work" "$prefix.new"' EXIT
case $1 in
runtime)
    rm -rf "$prefix.new"
    mkdir -p "$prefix.new"
    build_runtime "$prefix.new"
    replace "$prefix"
    ;;
agent) add_agent "$prefix" ;;
*) die "usage: host-bundle.sh runtime|agent PREFIX" ;;
esac
