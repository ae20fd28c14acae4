"""No page of an image is younger than the freeze, however slow storage is.

CRIU splices live pages into its pipes, so whoever lets the tasks run before the pipes are empty
gets pages of different moments. The last test shows that this is so, and that it would be seen.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from agent.capture.pipeline import CHUNK_SIZE, LEAST_CHUNKS
from agent.chunks import ChunkReader, read_manifest
from agent.store.base import Store
from bench.bundle import generations
from bench.generations import Verdict, check
from bench.reports import Generations
from bench.runc import Container
from tests.fakes.hasty_streamer import HastyStreamer
from tests.fakes.slow_store import hesitant, throttled
from tests.integration.lab import Lab
from tests.integration.trees import started_tree

pytestmark = [pytest.mark.root, pytest.mark.criu]

# Seconds of checkpoints, one after the other.
ROUNDS = 6.0


def pages(lab: Lab, checkpoint_id: str) -> Iterator[memoryview]:
    """What is in all pages images of a checkpoint."""
    manifest = read_manifest(lab.store, checkpoint_id)
    reader = ChunkReader(lab.store, manifest)
    for image in manifest.members[0].images:
        if image.name.startswith("pages-"):
            for piece in image.pieces:
                yield memoryview(reader.read(piece.chunk))[piece.offset :][: piece.length]


def verdict(lab: Lab, checkpoint_id: str, container: Container) -> Verdict:
    """What the image says, which is gone afterwards."""
    total = container.report("generations").read(Generations.PAGES)
    found = check(pages(lab, checkpoint_id), pages=total)
    lab.store.discard(checkpoint_id)
    return found


async def rounds(
    lab: Lab,
    mib: int,
    slowed: Callable[[Store], Store],
    *,
    streams: int = 4,
    codec: str = "zstd",
) -> None:
    """Checkpoint over and over, each time through a store of its own slowness, and check."""
    container = lab.runc.start(lab.runc.build(generations(mib)))
    report = container.report("generations")
    found: list[Verdict] = []
    deadline = time.monotonic() + ROUNDS
    while time.monotonic() < deadline or len(found) < 3:
        generation = report.read(Generations.GENERATION)
        report.wait_beyond(Generations.GENERATION, generation)
        slow = lab.with_store(slowed(lab.store))
        done = await slow.checkpoint(container, streams=streams, codec=codec)
        found.append(verdict(lab, done.checkpoint_id, container))

    assert [each.problems for each in found] == [()] * len(found)
    moments = [each.generation for each in found]
    assert moments == sorted(set(moments)), "it has to go on between two checkpoints"
    assert report.read(Generations.ERRORS) == 0


async def test_images_through_a_slow_store_are_of_one_moment(lab: Lab) -> None:
    await rounds(lab, 8, lambda store: throttled(store, bytes_per_second=1e6))


async def test_images_that_wait_in_the_pipe_are_of_one_moment(lab: Lab) -> None:
    # A little more than the agent's buffers hold, and a store that hesitates longer than it takes
    # to thaw: CRIU has written everything while the end of it is still in the pipe.
    mib = LEAST_CHUNKS * CHUNK_SIZE >> 20
    await rounds(
        lab, mib, lambda store: hesitant(store, chunks=4, seconds=0.4), codec="none", streams=1
    )


def test_without_the_hold_an_image_is_torn(lab: Lab) -> None:
    images, work = lab.directory / "images", lab.directory / "work"
    images.mkdir()
    work.mkdir()
    with started_tree(lab.directory, generations(8)) as tree, HastyStreamer(images) as streamer:
        report = tree.report
        report.wait_beyond(Generations.GENERATION, 2)
        subprocess.run(
            [lab.tools.criu, "dump", "--stream", "--leave-running", "--tree", str(tree.pid),
             "--images-dir", images, "--work-dir", work, "--log-file", "dump.log"],
            check=True,
        )  # fmt: skip
        report.wait_beyond(Generations.GENERATION, report.read(Generations.GENERATION) + 1)
        streamer.finish()

        found = check([streamer.pages], pages=report.read(Generations.PAGES))

    assert found.pages == 8 * 256
    assert "runs of generations" in " ".join(found.problems)
