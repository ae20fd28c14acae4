# Sourced by scripts that take packages from another release of this distribution, without a change to
# the system. They set `work`, a directory of their own, and read /etc/os-release.
# shellcheck shell=bash

# The machine's own entries, moved to release $1, into directory $2. Entries of other vendors name
# suites of their own (stable, bookworm-pgdg, ./) and are left out.
write_sources() {
    local release=$1 directory=$2 file
    mkdir -p "$directory"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -r $file ]] || continue
        awk -v from="$VERSION_CODENAME" -v to="$release" '
            $1 == "deb" {
                suite = ($2 ~ /^\[/) ? 0 : 3
                for (i = 2; !suite && i < NF; i++) if ($i ~ /\]$/) suite = i + 2
                if ($suite ~ "^" from "(-updates|-security)?$") { sub(from, to, $suite); print }
            }' "$file" >"$directory/$(basename "$file" .list).list"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -r $file ]] || continue
        awk -v from="$VERSION_CODENAME" -v to="$release" '
            BEGIN { RS = ""; ORS = "\n\n"; FS = "\n" }
            {
                kept = ""
                for (i = 1; i <= NF; i++) if (tolower($i) ~ /^suites:/) {
                    n = split($i, word, /[ \t]+/)
                    for (j = 2; j <= n; j++)
                        if (word[j] ~ "^" from "(-updates|-security)?$") {
                            sub(from, to, word[j]); kept = kept " " word[j]
                        }
                    $i = "Suites:" kept
                }
                if (kept != "") { out = $1; for (i = 2; i <= NF; i++) out = out "\n" $i; print out }
            }' "$file" >"$directory/$(basename "$file")"
    done
}

# apt with everything of its own, so that the system's lists and locks are not involved. An empty
# list of installed packages makes it fetch the whole closure, the C library included.
# shellcheck disable=SC2154  # work: see above
private_apt() {
    local command=$1
    shift
    "$command" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
        -o Dir::State="$work/state" -o Dir::State::lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
        -o Dir::Cache::archives="$work/cache/archives" -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 -o APT::Install-Recommends=false "$@"
}

# Readies private_apt for packages of release $1.
# shellcheck disable=SC2154  # work: see above
use_release() {
    mkdir -p "$work"/{state,lists/partial,cache/archives/partial}
    : >"$work/status"
    write_sources "$1" "$work/sources"
    # One broken source does not matter while another has what is wanted: whether it has is seen next.
    private_apt apt-get update || true
}
