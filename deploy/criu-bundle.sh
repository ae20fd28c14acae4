#!/usr/bin/env bash
# criu-bundle.sh PREFIX: puts a CRIU >= 4.2 into PREFIX that runs on any distribution and kernel.
#
# Older releases carry no CRIU, or one that does not start on current kernels (3.17.1: "Unexpected
# rt vDSO area bounds"), or that cannot dump a TCP socket there (before 4.2, Linux >= 6.16). A newer
# release of the same distribution has one, so it is taken from there together with every library it
# needs, the C library and its loader included: nothing in PREFIX touches the system, and PREFIX may
# be moved or copied to another machine. The packages come from this machine's own sources with the
# release's name replaced, and apt checks their signatures.
#
#   PREFIX/bin/criu                           starts it
#   PREFIX/usr/lib/python3/dist-packages/pycriu   the matching Python package
set -euo pipefail
export LC_ALL=C.UTF-8

MINIMUM=4.2

die() {
    echo "criu-bundle: $*" >&2
    exit 1
}

newer_release() { # the release that has CRIU >= $MINIMUM, for this machine's distribution
    case $ID in
    debian) echo forky ;;
    ubuntu) echo resolute ;;
    *) die "no CRIU is known for '$ID'. Install CRIU >= $MINIMUM and pycriu yourself, then try again." ;;
    esac
}

fetch() {
    use_release "$release"
    local candidate
    candidate=$(private_apt apt-cache policy criu | awk '$1 == "Candidate:" { print $2 }')
    if [[ ${candidate:-(none)} == "(none)" ]] ||
        dpkg --compare-versions "$candidate" lt "$MINIMUM"; then
        die "this machine's package sources have no CRIU >= $MINIMUM for release '$release'." \
            "Check the network, or install CRIU >= $MINIMUM and pycriu yourself, then try again."
    fi
    private_apt apt-get install -y --download-only criu
    (cd "$work/cache/archives" && private_apt apt-get download python3-pycriu)
}

unpack() { # all packages into $1, without what only a system needs; licences stay
    local target=${1:?} package
    mkdir -p "$target"
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$target"
    done
    rm -rf "${target:?}"/{etc,var,usr/bin,usr/include,usr/libexec}
    rm -rf "$target"/usr/lib/*/{gconv,compel}
    rm -rf "$target"/usr/share/{man,locale,lintian,bash-completion,libc-bin}
    find "$target" \( -path '*/share/doc/*' ! -name copyright -o -name '*.a' \) ! -type d -delete
    find "$target" -depth -type d -empty -delete
}

write_starter() { # PREFIX/bin/criu
    local loader library
    loader=$(cd "$1" && find . -name 'ld-linux*.so.*' -print -quit)
    library=$(cd "$1" && find . -name libc.so.6 -print -quit)
    # CRIU loads plug-ins from the system's /usr/lib/criu; those belong to another version.
    mkdir -p "$1/bin" "$1/usr/lib/criu"
    cat >"$1/bin/criu" <<STARTER
#!/bin/sh
# Starts this bundle's CRIU with its own loader and libraries, wherever the bundle lies.
self=\$0
[ -L "\$self" ] && self=\$(readlink -f "\$self")
root=\${self%/*}/..
export CRIU_LIBS_DIR="\${CRIU_LIBS_DIR:-\$root/usr/lib/criu}"
exec "\$root/${loader#./}" --library-path "\$root/$(dirname "${library#./}")" --argv0 criu \\
    "\$root/usr/sbin/criu" "\$@"
STARTER
    chmod 755 "$1/bin/criu"
}

[[ $# -eq 1 ]] || die "usage: criu-bundle.sh PREFIX"
prefix=$1
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck source=deploy/other-release.sh
. "$(dirname "${BASH_SOURCE[0]}")/other-release.sh"
release=$(newer_release)
work=$(mktemp -d)
trap 'rm -rf "$work" "$prefix.new"' EXIT

fetch
rm -rf "$prefix.new"
unpack "$prefix.new"
write_starter "$prefix.new"
"$prefix.new/bin/criu" --version || die "the CRIU that was fetched does not start on this machine."
# Two renames: the shortest time without a CRIU for those who use this one.
rm -rf "$prefix.old"
[[ ! -e $prefix ]] || mv "$prefix" "$prefix.old"
mv "$prefix.new" "$prefix"
rm -rf "$prefix.old"
