# Sourced by checkpointctl.sh, kubectl.sh and podman.sh: how a program that only tests use gets into a
# directory of its own, from packages that are not installed. Scripts end with 3 where there are none.
# shellcheck shell=bash

NO_PACKAGE=3
tool=$(basename "$0" .sh)

give_up() {
    echo "$tool: $*" >&2
    exit "$NO_PACKAGE"
}

# Makes `work`, for what is fetched, and $prefix.new, for what will be in PREFIX.
begin() { # PREFIX
    [[ $# -eq 1 ]] || {
        echo "usage: $tool.sh PREFIX" >&2
        exit 2
    }
    prefix=$1
    work=$(mktemp -d)
    trap 'rm -rf "$work" "$prefix.new"' EXIT
    rm -rf "$prefix.new"
    mkdir -p "$prefix.new/bin"
}

# The first release that has all of them; an older one takes its packages.
use_release_with_tools() {
    # shellcheck source=/dev/null
    . /etc/os-release
    # shellcheck source=deploy/other-release.sh
    . "$(dirname "${BASH_SOURCE[0]}")/other-release.sh"
    case $ID in
    debian) release=trixie ;;
    ubuntu) release=resolute ;;
    *) give_up "it is not known for '$ID'." ;;
    esac
    use_release "$release"
}

none_there() {
    give_up "this machine's package sources have none for release '$release'."
}

# What is in $prefix.new works.
finish() {
    rm -rf "$prefix"
    mv "$prefix.new" "$prefix"
}
