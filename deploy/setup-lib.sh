# Sourced by setup.sh: messages, and packages without side effects.
# shellcheck shell=bash

POLICY=/usr/sbin/policy-rc.d
NO_CLUSTER=/etc/postgresql-common/createcluster.d/checkpoint-agent-setup.conf

die() {
    echo "setup: $*" >&2
    exit 1
}

# Runs a command with its output in the log, which is shown when it fails.
step() { # MESSAGE COMMAND...
    local message=$1
    shift
    echo "setup: $message"
    if ! "$@" >>"$LOG" 2>&1 8>&- 9>&- </dev/null; then
        echo "setup: failed: $* (the last lines of $LOG:)" >&2
        tail -n 15 "$LOG" >&2
        return 1
    fi
}

apt() { # apt-get that waits for another one to finish
    apt-get -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

is_installed() { # "package", "package:command" or "package:/path/with/*/in/it"
    [[ $1 == *:/* ]] && compgen -G "${1#*:}" >/dev/null && return
    [[ $1 == *:* ]] && command -v "${1#*:}" >/dev/null && return
    [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "${1%%:*}" 2>/dev/null) == ?i* ]]
}

candidate() { # the version of package $1 that apt would install, 0 when it knows none
    apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { v = $2 } END { print v ? v : 0 }'
}

# Once per run. A source that cannot be reached does not matter while the others have the packages.
refresh_lists() {
    [[ -n ${lists_are_fresh:-} ]] && return
    step "updating package lists" apt update || true
    lists_are_fresh=yes
}

# Installs those of the given packages that are missing.
install_packages() {
    local package missing=() removed
    repair_services
    for package in "$@"; do
        is_installed "$package" || missing+=("${package%%:*}")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        die "apt-get is not here, so this is no Debian or Ubuntu. Install by hand: ${missing[*]}"
    ((EUID == 0)) || die "root is needed to install: ${missing[*]}"
    refresh_lists
    forbid_services
    # Killed together with apt: until this is done, apt refuses everything.
    if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null; then
        step "finishing an installation that was cut short" dpkg --configure -a || true
    fi
    # A package that would push out another is not worth it; busybox and busybox-static do the same.
    removed=$(apt -s --no-install-recommends install "${missing[@]}" 2>>"$LOG" |
        awk '$1 == "Remv" && $2 != "busybox" { print $2 }') ||
        die "no package for all of: ${missing[*]}. Check /etc/apt and the network; $LOG says more."
    [[ -z $removed ]] ||
        die "installing ${missing[*]} would remove ${removed//$'\n'/, }: do it by hand."
    step "installing ${missing[*]}" apt --no-install-recommends install "${missing[@]}" ||
        die "the packages could not be installed. Check the network and free space, then try again."
    allow_services
    trap - EXIT
    unlock_services
    disable_services "${missing[@]}"
}

# policy-rc.d is what a package asks before it starts its server: 101 means no. PostgreSQL's makes a
# cluster too, which would run from the next boot on, unless it is told not to.
forbid_services() {
    lock_services
    allow_services
    [[ -e $POLICY ]] && mv "$POLICY" "$POLICY.before-setup"
    printf '#!/bin/sh\n# Put here by %s while it runs.\nexit 101\n' "$ROOT/deploy/setup.sh" >"$POLICY"
    chmod 755 "$POLICY"
    trap allow_services EXIT
    mkdir -p "${NO_CLUSTER%/*}"
    echo 'create_main_cluster = false' >"$NO_CLUSTER"
}

# Against the setup of another checkout. A lock on a directory needs no file.
lock_services() {
    exec 8<"${POLICY%/*}"
    flock 8
}

unlock_services() {
    exec 8<&-
}

# After a run that was killed half-way: else no server would ever start with its package again, also
# where nothing is missing any more.
repair_services() {
    is_our_policy || [[ -e $POLICY.before-setup || -e $NO_CLUSTER ]] || return 0
    ((EUID == 0)) || return 0
    lock_services
    allow_services
    unlock_services
}

is_our_policy() {
    grep -qs '^# Put here by .*/deploy/setup.sh while' "$POLICY"
}

# Puts things back as they were.
allow_services() {
    is_our_policy && rm -f "$POLICY"
    [[ -e $POLICY.before-setup ]] && mv "$POLICY.before-setup" "$POLICY"
    if [[ -e $NO_CLUSTER ]]; then
        rm "$NO_CLUSTER"
        # As far as nothing else is in them.
        rmdir --parents --ignore-fail-on-non-empty "${NO_CLUSTER%/*}"
    fi
}

# None of these packages' servers runs at the next boot: the tests start their own. (What apt added
# on its own, a cron or a syslog perhaps, is left as the distribution wants it.)
disable_services() {
    local package unit
    for package in "$@"; do
        while read -r unit; do
            systemctl disable "$unit" >>"$LOG" 2>&1 || true
        done < <(dpkg -L "$package" | sed -nE 's,.*/systemd/system/([^/@]+\.(service|timer|socket))$,\1,p')
        while read -r unit; do
            update-rc.d "$unit" disable >>"$LOG" 2>&1 || true
        done < <(dpkg -L "$package" | sed -nE 's,^/etc/init\.d/([^/]+)$,\1,p')
    done
}
