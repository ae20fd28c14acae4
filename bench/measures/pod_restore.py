"""A container that a kubelet would create, back from a checkpoint, beside a restore by hand."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from agent.restore import RestoreRequest, restore
from agent.store import open_checkpoint
from bench.bundle import memory
from bench.lab import Lab, settle
from bench.outcome import Outcome, Samples, Target
from bench.reports import Memory
from tests.restore_nodes import RestoreNode, asking, restore_handler, restore_node
from tests.servers.cri_pods import ContainerSpec

MIB = 512
POD, BY_HAND, COLD = "CreateContainer + StartContainer", "runc restore, streamed", "the same, cold"


class Spoiled(Exception):
    """What was restored is not what was checkpointed, so its time means nothing."""


def measure(lab: Lab) -> Outcome:
    """Alternate both, each from a checkpoint of its own of the same workload."""
    samples = Samples()
    with (
        tempfile.TemporaryDirectory(prefix="ca-") as directory,
        restore_handler(Path(directory)) as handler,
        restore_node(handler, Path(directory), {"storage": {"store": str(lab.store)}}) as node,
    ):
        node.daemon.start()
        node.daemon.wait_ready()
        _measure(lab, node, samples)
    lab.empty_store()
    pod, hand = samples.median(POD, "wall"), samples.median(BY_HAND, "wall")
    target = Target("restore into a pod", pod / hand, 1.3, "x",
                    f"of {BY_HAND}: {pod:.2f} s / {hand:.2f} s")  # fmt: skip
    return Outcome("pod_restore", f"Restore of {MIB} MiB into a pod", samples, [target], NOTES)


def _measure(lab: Lab, node: RestoreNode, samples: Samples) -> None:
    spec = ContainerSpec("app", workload=memory(MIB))
    first = node.run("first", [spec])
    path = node.checkpoint(first)
    first.remove()
    container = lab.runc.start(lab.runc.build(memory(MIB)))
    store, checkpoint_id = open_checkpoint(lab.checkpoint(container)[0].text("path"))
    container.delete()
    request = RestoreRequest(store, checkpoint_id)
    state_dir = lab.runc.directory / "state"
    for number in range(lab.scale.rounds):
        settle(lab.store)
        samples.add(POD, wall=_create(node, f"again-{number}", path))
        settle(lab.store)
        began = time.monotonic()
        asyncio.run(restore(request, tools=lab.tools, state_dir=state_dir))
        samples.add(BY_HAND, wall=time.monotonic() - began)
        container.delete()
        samples.add(COLD, wall=_create(node, f"cold-{number}", ""))


def _create(node: RestoreNode, name: str, path: str) -> float:
    """The seconds of a container's creation and start in a pod that is there."""
    pod = node.run(name, [])
    began = time.monotonic()
    spec = asking("app", path, workload=memory(MIB))
    pod.begin(spec)
    seconds = time.monotonic() - began
    if path:
        report = pod.report("app")
        report.ask(Memory.VERIFY, Memory.VERIFIED)
        if report.read(Memory.FAILURES) or node.record(pod, "app")["state"] != "restored":
            raise Spoiled(node.record(pod, "app"))
    pod.remove()
    return seconds


NOTES = [
    "By hand is what `checkpoint-agent restore` does, without the start of Python; the pod's is "
    "the two calls of the CRI that a kubelet makes, with all that containerd does for a container: "
    "its snapshot, its shim's part, two calls of the runtime. Cold is those without a checkpoint. "
    "All read from the same disk, with what they read not in the page cache; after each restore "
    "the checksum of the memory is compared, outside the time.",
]
