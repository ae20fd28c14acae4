"""The image server with data that is damaged, or a store that fails: nothing looks whole."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from agent.errors import CheckpointCorrupt, RestoreFailed, StoreFailed
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import flip_payload
from tests.fakes.criu_client import CriuClient
from tests.image_serving import CHUNK, LARGE, PAGES, Serving, started
from tests.waiting import PATIENCE


def test_a_damaged_small_image_is_never_begun(stack: ExitStack, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "images")
    flip_payload(serving.store, serving.manifest, serving.chunk("pagemap-1.img", -1))
    started(stack, serving)
    with CriuClient(serving.directory) as criu, pytest.raises(EOFError):
        criu.exists("pagemap-1.img")
    with pytest.raises(CheckpointCorrupt, match="digest"):
        serving.server.wait()
    assert serving.failed.is_set()


def test_a_damaged_large_image_is_never_begun_and_never_ended(
    stack: ExitStack, tmp_path: Path
) -> None:
    serving = Serving(tmp_path / "images")
    (name,) = LARGE
    flip_payload(serving.store, serving.manifest, serving.chunk(name, -2))
    started(stack, serving)
    with CriuClient(serving.directory) as criu:
        pipe = criu.open(name)
        assert pipe is not None
        assert serving.failed.wait(PATIENCE)
        with pytest.raises(EOFError):
            criu.exists("inventory.img")
        os.set_blocking(pipe, False)
        with pytest.raises(BlockingIOError):
            os.read(pipe, 1)
    with pytest.raises(CheckpointCorrupt):
        serving.server.wait()
    os.close(pipe)


@pytest.mark.parametrize("piece", [0, 1, -1])
def test_damaged_pages_end_early_and_so_does_everything_else(
    stack: ExitStack, tmp_path: Path, piece: int
) -> None:
    serving = Serving(tmp_path / "images")
    flip_payload(serving.store, serving.manifest, serving.chunk("pages-2.img", piece))
    started(stack, serving)
    with CriuClient(serving.directory) as criu:
        pages = criu.read("pages-2.img")
        assert pages is not None
        assert PAGES["pages-2.img"].startswith(pages)
        assert len(pages) <= len(PAGES["pages-2.img"]) - CHUNK or piece == -1
        assert len(pages) < len(PAGES["pages-2.img"])
        assert serving.failed.wait(PATIENCE)
        with pytest.raises(EOFError):
            criu.exists("pages-1.img")
    with pytest.raises(CheckpointCorrupt, match=r"part of pages-2\.img of c0"):
        serving.server.wait()


def test_a_store_that_fails_is_told_as_it_was(stack: ExitStack, tmp_path: Path) -> None:
    class Failing(MemoryStore):
        failing = False

        def read(self, path: str, offset: int, length: int) -> Data:
            if self.failing:
                raise StoreFailed("read", self.url, "connection lost")
            return super().read(path, offset, length)

    store = Failing("failing")
    serving = Serving(tmp_path / "images", store=store)
    store.failing = True
    started(stack, serving)
    with CriuClient(serving.directory) as criu, pytest.raises(EOFError):
        criu.exists("inventory.img")
    with pytest.raises(StoreFailed, match="connection lost"):
        serving.server.wait()


class Broken(MemoryStore):
    """It fails in a way that no store may."""

    def read(self, path: str, offset: int, length: int) -> Data:
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["core-1.img", "pages-1.img", *LARGE])
def test_a_defect_leaves_no_criu_waiting(stack: ExitStack, tmp_path: Path, name: str) -> None:
    serving = started(stack, Serving(tmp_path / "images", store=Broken("broken")))
    criu = stack.enter_context(CriuClient(serving.directory))
    with suppress(EOFError, ConnectionError):
        pipe = criu.open(name)
        assert pipe is not None
        stack.callback(os.close, pipe)
    assert serving.failed.wait(20)
    with pytest.raises(RestoreFailed, match="ZeroDivisionError"):
        serving.server.check()
