#!/usr/bin/env bash
# kubectl.sh PREFIX: puts Kubernetes' client into PREFIX, which has kustomize in it: what renders
# deploy/kubernetes for checks and tests.
#
# It is in Debian since 13, and a program that needs nothing but a C library, so older releases take
# that one: from this machine's own sources with the release's name replaced; apt checks its signature.
#
#   PREFIX/bin/kubectl
#
# Exits with 3 where there is no such package.
set -euo pipefail
export LC_ALL=C.UTF-8

# shellcheck source=deploy/test-tool.sh
. "$(dirname "${BASH_SOURCE[0]}")/test-tool.sh"
begin "$@"
use_release_with_tools
(cd "$work" && private_apt apt-get download kubectl) || none_there
dpkg-deb --fsys-tarfile "$work"/kubectl_*.deb | tar -xO ./usr/bin/kubectl >"$prefix.new/bin/kubectl"
chmod 755 "$prefix.new/bin/kubectl"
"$prefix.new/bin/kubectl" kustomize --help >/dev/null
finish
