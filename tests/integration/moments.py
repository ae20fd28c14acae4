"""Pods without Kubernetes: containers that share a directory and pass a number round."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.chunks import ChunkReader, read_manifest
from agent.manifest import Member, Pod
from agent.report import CheckpointResult
from agent.targets import Volume
from bench.bundle import Bundle, Workload
from bench.reports import SLOT, Exchange
from bench.runc import Container
from tests.integration.lab import Lab, target_of

_MAGIC = b"EXCHANGE"
_PAGE = 4096

POD = Pod(uid="0b5c", namespace="default", name="ring")


@dataclass(frozen=True, slots=True)
class Ring:
    """Running containers in the order in which they pass the number on."""

    lab: Lab
    containers: tuple[Container, ...]
    shared: Path

    def numbers(self) -> list[int]:
        """Where each of them is now, read one after the other."""
        return [each.report("exchange").read(Exchange.NUMBER) for each in self.containers]

    def assert_goes_on(self) -> None:
        """All run, thawed, and none has missed a number."""
        for each in self.containers:
            report = each.report("exchange")
            report.wait_beyond(Exchange.NUMBER, report.read(Exchange.NUMBER) + 3)
            assert each.status() == "running"
            assert report.read(Exchange.SKIPPED) == 0

    def request(self, **more: Any) -> CheckpointRequest:  # noqa: ANN401 - its fields
        """All of them as one pod, the members called c0, c1, ..."""
        members = tuple(
            MemberRequest(target_of(each), f"c{number}")
            for number, each in enumerate(self.containers)
        )
        fields: dict[str, Any] = {"members": members, "store": self.lab.store, "pod": POD} | more
        return CheckpointRequest(**fields)

    async def checkpoint(self, **more: Any) -> CheckpointResult:  # noqa: ANN401
        """Checkpoint them."""
        request = self.request(**more)
        return await checkpoint(request, tools=self.lab.tools, state_dir=self.lab.state_dir)


def ring(lab: Lab, *mib: int) -> Ring:
    """Start a container for each size of ballast in MiB."""
    shared = lab.directory / f"shared-{uuid.uuid4().hex[:8]}"
    shared.mkdir()
    (shared / "numbers").write_bytes(bytes(_PAGE))
    bundles = []
    for place, size in enumerate(mib):
        words = ("/shared/numbers", str(place), str(len(mib)), str(size))
        bundles.append(lab.runc.build(Workload("exchange", words)))
        bind(bundles[-1], shared, "/shared")
    return Ring(lab, tuple(lab.runc.start(bundle) for bundle in bundles), shared)


def bind(bundle: Bundle, source: Path, destination: str) -> None:
    """Mount a directory of the host into a bundle that does not run yet."""
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    config["mounts"].append(
        {"destination": destination, "type": "bind", "source": str(source),
         "options": ["rbind", "rw"]}
    )  # fmt: skip
    path.write_text(json.dumps(config))


def volume(source: Path, name: str = "data", medium: str = "empty-dir") -> Volume:
    """A directory of the host as a pod's volume."""
    return Volume(name, source, medium)


def image_of(lab: Lab, checkpoint_id: str, name: str, member: int = 0) -> bytes:
    """An image of one member, whole."""
    manifest = read_manifest(lab.store, checkpoint_id)
    image = manifest.members[member].image(name)
    assert image is not None, name
    reader = ChunkReader(lab.store, manifest)
    return b"".join(
        bytes(reader.read(piece.chunk)[piece.offset : piece.offset + piece.length])
        for piece in image.pieces
    )


def imaged_numbers(lab: Lab, checkpoint_id: str) -> list[int]:
    """Where each member was, as its own memory in the checkpoint says."""
    manifest = read_manifest(lab.store, checkpoint_id)
    reader = ChunkReader(lab.store, manifest)
    return [_number(reader, member) for member in manifest.members]


def _number(reader: ChunkReader, member: Member) -> int:
    found = []
    for image in member.images:
        if image.name.startswith("pages-"):
            for piece in image.pieces:
                data = bytes(reader.read(piece.chunk)[piece.offset :][: piece.length])
                found += [
                    int(SLOT.unpack_from(data, at + len(_MAGIC))[0])
                    for at in range(0, len(data), _PAGE)
                    if data.startswith(_MAGIC, at)
                ]
    [number] = found
    return number


def is_one_moment(numbers: Sequence[int]) -> bool:
    """Whether the ring can have looked like that: see bench/workloads/exchange.c."""
    falls = all(before >= after for before, after in pairwise(numbers))
    return falls and numbers[0] - numbers[-1] <= 1
