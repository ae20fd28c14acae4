"""The node daemon: what a message costs on top of runc, many messages, and doing nothing."""

from __future__ import annotations

import asyncio
import time

from bench.bundle import COUNTER, memory
from bench.lab import Lab
from bench.node import PATIENCE, Node, node
from bench.outcome import Outcome, Samples, Target

BARE, EVENT = "bare `runc checkpoint --leave-running`", "event to ready"
IDLE, UNKNOWN = "idle daemon", "unknown pods"


def measure(lab: Lab) -> Outcome:
    """A small container by message and by hand, alternately; unknown pods; then nothing at all."""
    samples = Samples()
    asyncio.run(_measure(lab, samples))
    lab.empty_store()
    event, bare = samples.median(EVENT, "wall"), samples.median(BARE, "wall")
    unknown = samples.median(UNKNOWN, "wall")
    targets = [
        Target("event received to ready, 1 MiB", event / bare, 1.6, "x",
               f"of {BARE}: {event * 1000:.0f} ms / {bare * 1000:.0f} ms"),
        Target(f"{lab.scale.unknown} actions for unknown pods", unknown, 10, "s",
               "from the first message to the last answer"),
        Target("idle daemon, memory", samples.median(IDLE, "MiB"), 120, "MiB", "resident"),
        Target("idle daemon, processor", samples.median(IDLE, "% of a core"), 0.5, "%",
               f"of a core, over {lab.scale.idle_seconds} s"),
    ]  # fmt: skip
    return Outcome("daemon", "The node daemon", samples, targets, NOTES)


async def _measure(lab: Lab, samples: Samples) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER, memory(1)))
    spec = {"container": {"id": container.id, "runcRoot": str(lab.runc.path)}}
    async with node(lab.runc.directory / "node", lab.runc.path, lab.store) as daemon:
        await _idle(lab, daemon, samples)
        for number in range(lab.scale.launcher_rounds + 1):
            event, _ = await daemon.run(dict(spec))
            images = lab.images("bare")
            began = time.monotonic()
            await asyncio.to_thread(container.checkpoint, images, "--leave-running")
            if number:
                samples.add(BARE, wall=time.monotonic() - began)
                samples.add(EVENT, wall=event)
        await _unknown(lab, daemon, samples)
    container.delete()


async def _idle(lab: Lab, daemon: Node, samples: Samples) -> None:
    # What its start has left to do is not idling.
    await asyncio.sleep(5)
    used, began = daemon.cpu_seconds(), time.monotonic()
    await asyncio.sleep(lab.scale.idle_seconds)
    share = (daemon.cpu_seconds() - used) / (time.monotonic() - began) * 100
    samples.add(IDLE, **{"MiB": daemon.resident_bytes() / (1 << 20), "% of a core": share})


async def _unknown(lab: Lab, daemon: Node, samples: Samples) -> None:
    began = time.monotonic()
    futures = [
        await daemon.publish({"pod": {"namespace": "bench", "name": f"nobody-{number}"}})
        for number in range(lab.scale.unknown)
    ]
    async with asyncio.timeout(PATIENCE):
        ended = [moment for moment, _ in await asyncio.gather(*futures)]
    samples.add(UNKNOWN, wall=max(ended) - began)


NOTES = [
    "One daemon with one nats-server, both on this machine. `event to ready` is from the moment a "
    "client publishes the action until it has the `ready` event: the checkpoint is compressed, "
    "fsynced and committed, and both messages have been stored by JetStream. Bare runc writes its "
    "images without fsync.",
]
