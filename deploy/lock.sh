#!/usr/bin/env bash
# Pins what pyproject.toml asks for, with hashes, for every supported Python: `make lock`.
# Run it after a change of dependencies, or to take newer versions: `make lock UPGRADE=1`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(PATH="$PWD/.venv/bin:$PATH" command -v uv) || {
    echo "lock: uv is not installed; \`.venv/bin/pip install uv\` brings it." >&2
    exit 1
}

lock() { # FILE, then what belongs in it
    local file=$1
    shift
    "$uv" pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
        --custom-compile-command "make lock" ${UPGRADE:+--upgrade} --group build \
        --output-file "$file" "$@" >/dev/null
    echo "$file: $(grep -c == "$file") packages"
}

# What the tests and the checks need on top of the rest. It comes first: what they cannot work with,
# as moto with python-dateutil 4, must not be pinned for the others either.
lock deploy/requirements-dev.lock --extra broker --extra gpu --extra dev
# What the daemon, the API and `checkpoint-agent dev` need, in the same versions.
lock deploy/requirements.lock --extra broker --extra gpu --constraint deploy/requirements-dev.lock
