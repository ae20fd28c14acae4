"""Containers of pods that crun runs, which the agent cannot checkpoint but can name.

crun, the default of CRI-O now, writes a file ``status`` where runc writes ``state.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.pods.annotations import Identity, identify
from agent.pods.bundle import bundle_facts
from agent.pods.files import read_object
from agent.pods.records import entries

# Where crun keeps its containers under CRI-O; under containerd it is given runc's root.
ROOT = Path("/run/crun")


def crun_containers(roots: Iterable[Path]) -> Iterator[Identity]:
    """Whose the containers are that crun has below these roots, or its own."""
    for _, entry in entries([*roots, ROOT]):
        status = read_object(Path(entry) / "status")
        bundle = status.get("bundle") if status else None
        if not status or not isinstance(bundle, str) or not bundle.startswith("/"):
            continue
        annotations = dict(bundle_facts(Path(bundle)).annotations)
        found = identify(annotations, [str(status.get("cgroup-path"))])
        if found is not None:
            yield found
