"""Debian's Chromium, and a site for it to look at: one of each for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.sites import HOSTILE, Site, node_info, site_in
from tests.browser.visits import CHROMIUM, PATIENCE, Visit, Visiting, chromium, visit
from tests.servers.nats import nats_server

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def _installed() -> None:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}: this distribution has it as a snap only")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(_installed: None) -> AsyncIterator[Browser]:
    """The browser; tests have a context each."""
    async with chromium() as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with nats_server(folder) as broker:
        async with site_in(folder, broker) as site:
            site.nodes = [
                node_info("node-a", [("web", "running"), ("done", "stopped")], running=1),
                node_info("gpu-1", [(HOSTILE, "running")], gpus=4),
            ]
            yield site


@pytest.fixture
def site(_site: Site) -> Site:
    """The API with two nodes. Tests tell their actions from others' by the namespace."""
    # The inventory forgets a node after 30 s.
    _site.announce()
    return _site


@pytest.fixture
def visiting(browser: Browser, site: Site) -> Visiting:
    """`async with visiting(token) as tab`: the console has to be empty at the end."""

    def make(token: str | None = None) -> AbstractAsyncContextManager[Visit]:
        return visit(browser, site.url, token)

    return make
