"""Are the manifests of deploy/kubernetes what Kubernetes takes? Offline, by its own schemas.

`make check` runs it. Whether they agree with each other and with the code is for
tests/unit/test_manifests.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
KUSTOMIZATIONS = ("base", "examples/s3")
# The oldest that somebody still supports, and the newest that there is a schema for.
OLDEST = "1.29"


def render(kustomization: str) -> list[dict[str, Any]]:
    """The objects of one below deploy/kubernetes. Raises CalledProcessError, FileNotFoundError."""
    bundled = ROOT / ".tools" / "kubectl" / "bin" / "kubectl"
    program = bundled if bundled.exists() else shutil.which("kubectl")
    if program is None:
        raise FileNotFoundError("kubectl")
    words = [program, "kustomize", ROOT / "deploy" / "kubernetes" / kustomization]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def problems(objects: list[dict[str, Any]], version: str) -> Iterator[str]:
    """What that version of Kubernetes would refuse, or not know."""
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}, Kubernetes {version}"
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{name}: {error.message}"


def main() -> int:
    """Check all of them; 1 when something is wrong."""
    newest = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    found = []
    try:
        for kustomization in KUSTOMIZATIONS:
            objects = render(kustomization)
            for version in (OLDEST, newest):
                found += [f"{kustomization}: {each}" for each in problems(objects, version)]
    except FileNotFoundError:
        print("check_manifests: skipped, there is no kubectl (`make setup-test` says why)")
        return 0
    except subprocess.CalledProcessError:
        # kubectl has said why.
        return 1
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
