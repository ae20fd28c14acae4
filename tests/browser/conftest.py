"""Debian's Chromium, and a site for it to look at: one of each for all tests here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.relay import relayed
from tests.browser.sites import HOSTILE, Site, node_info, site_in
from tests.browser.visits import CHROMIUM, PATIENCE, Visit, Visiting, chromium, chromium_in, visit
from tests.networks import own_network
from tests.servers.nats import nats_server

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def _installed() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: this distribution has it as a snap only")


@pytest.fixture(scope="session")
def _network(_installed: None) -> Iterator[Path]:
    """The browser's: see `tests.browser.relay`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_network() as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(
    _network: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Browser]:
    """The browser; tests have a context each."""
    program = chromium_in(_network, tmp_path_factory.mktemp("browser"))
    async with chromium(program) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _site(_network: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with nats_server(folder) as broker:
        async with site_in(folder, broker) as site:
            site.nodes = [
                node_info("node-a", [("web", "running"), ("done", "stopped")], running=1),
                node_info("gpu-1", [(HOSTILE, "running")], gpus=4),
            ]
            port = urlsplit(site.url).port
            assert port is not None
            async with relayed(_network, port):
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
