"""How long a pod stands still: four containers of one moment, and one container as big as all."""

from __future__ import annotations

import asyncio

from bench.bundle import memory
from bench.command import Document
from bench.lab import Lab, settle
from bench.node import Node, node
from bench.outcome import Outcome, Samples, Target
from bench.runc import Container

CONTAINERS = 4
POD = "io.kubernetes.cri."


def measure(lab: Lab) -> Outcome:
    """Alternate the pod and the single container."""
    samples = Samples()
    asyncio.run(_measure(lab, samples))
    lab.empty_store()
    pod, single = _names(lab)
    together, alone = samples.median(pod, "frozen"), samples.median(single, "frozen")
    target = Target("frozen, a pod", together / alone, 1.3, "x",
                    f"of {single}: {together:.2f} s / {alone:.2f} s")  # fmt: skip
    return Outcome("pod", "A pod frozen as one", samples, [target], NOTES)


def _names(lab: Lab) -> tuple[str, str]:
    size = lab.scale.member
    return f"{CONTAINERS} containers of {size} MiB", f"one container of {CONTAINERS * size} MiB"


async def _measure(lab: Lab, samples: Samples) -> None:
    pod, single = _names(lab)
    members = [_start(lab, "many", number, lab.scale.member) for number in range(CONTAINERS)]
    alone = _start(lab, "one", 0, CONTAINERS * lab.scale.member)
    async with node(lab.runc.directory / "pods", lab.runc.path, lab.store) as daemon:
        for _ in range(lab.scale.rounds):
            samples.add(pod, **await _checkpoint(lab, daemon, "many"))
            samples.add(single, **await _checkpoint(lab, daemon, "one"))
    for container in (*members, alone):
        container.delete()


async def _checkpoint(lab: Lab, daemon: Node, name: str) -> dict[str, float]:
    lab.empty_store()
    await asyncio.to_thread(settle)
    wall, event = await daemon.run({"pod": {"namespace": "bench", "name": name}})
    outcome = event["checkpoint"]
    if not isinstance(outcome, dict):
        raise TypeError(f"no outcome: {outcome!r}")
    figures: Document = outcome
    raw = float(str(figures["bytesRaw"])) / (1 << 20)
    return {"wall": wall, "frozen": float(str(figures["frozenSeconds"])), "raw, MiB": raw}


def _start(lab: Lab, pod: str, number: int, mib: int) -> Container:
    annotations = {
        f"{POD}container-type": "container",
        f"{POD}sandbox-id": f"sandbox-{pod}",
        f"{POD}sandbox-name": pod,
        f"{POD}sandbox-namespace": "bench",
        f"{POD}sandbox-uid": f"uid-{pod}",
        f"{POD}container-name": f"member-{number}",
        f"{POD}image-name": "busybox",
    }
    return lab.runc.start(lab.runc.build(memory(mib), annotations=annotations))


NOTES = [
    "`frozen` is from the first container's freeze to the last one's thaw for the pod, with every "
    "start of runc and CRIU in it; for the single container it is CRIU's own figure. Both have the "
    "same bytes: a quarter each random, float-like, text and zero.",
]
