"""A container's layer, taken from one overlay and put into another that was mounted before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.chunks import read_manifest
from agent.host.mountinfo import read, topmost
from agent.host.remount import put_up, take_down
from agent.manifest import ROOTFS_DIFF
from agent.restore.trees import unpack
from tests.integration.lab import Lab
from tests.integration.overlays import change, overlaid, stopped_checkpoint
from tests.servers.containerd import ContainerdServer
from tests.tree_facts import BOUND_TO_THEIR_PLACE, facts_of

pytestmark = [pytest.mark.root, pytest.mark.criu]


async def test_a_layer_comes_back_in_another_overlay(lab: Lab) -> None:
    made = overlaid(lab)
    change(made.rootfs)
    checkpoint_id = await stopped_checkpoint(lab, made.container)
    was = facts_of(made.rootfs)
    layer_was = facts_of(made.upper, without=BOUND_TO_THEIR_PLACE)
    manifest = read_manifest(lab.store, checkpoint_id)
    image = manifest.members[0].image(ROOTFS_DIFF)
    assert image is not None

    made.renew()
    # Whoever has mounted it has looked into it, as runtimes do; the kernel remembers.
    assert (made.rootfs / "etc" / "gone").exists()
    layer = take_down(made.rootfs)
    upper = Path(os.fsdecode(layer.upper))
    assert upper == made.upper
    await unpack(lab.store, manifest, image, upper, log=lab.directory / "log")
    put_up(layer)

    assert facts_of(made.rootfs) == was
    assert facts_of(upper, without=BOUND_TO_THEIR_PLACE) == layer_was
    assert layer_was["old"].attributes["trusted.overlay.opaque"] == b"y"
    assert layer_was["sparse"].sparse
    assert not (made.rootfs / "etc" / "gone").exists()
    (made.rootfs / "etc" / "gone").write_text("it can be written to")


def test_an_overlay_that_containerd_has_mounted(containerd: ContainerdServer) -> None:
    pod = containerd.run_pod("web")
    root = containerd.bundle(pod.containers["main"]) / "rootfs"
    point = os.fsencode(root.resolve())
    before = topmost(point, read())
    assert before is not None

    layer = take_down(root)
    assert topmost(point, read()) is None
    Path(os.fsdecode(layer.upper), "put").write_text("below")
    put_up(layer)

    after = topmost(point, read())
    assert after is not None
    assert (after.source, after.super_options) == (before.source, before.super_options)
    assert (after.options, len(after.shared)) == (before.options, len(before.shared))
    assert (root / "put").read_text() == "below"
