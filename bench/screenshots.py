"""Pictures of the page for docs/: the real API on a real broker, with rows made up here.

python -m bench.screenshots
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, expect

from agent.api.database.connection import now
from tests.browser.sites import (
    MIB,
    PHASES,
    SECOND,
    Site,
    checkpointed,
    failure,
    progress,
    restored,
    site_in,
)
from tests.browser.visits import chromium
from tests.servers.nats import nats_server

DOCS = Path(__file__).resolve().parent.parent / "docs"
GIB = 1 << 30

DESKTOP, PHONE = (1280, 830), (380, 800)

Fields = dict[str, Any]

SHOWN = "cart-5c9d7f-q8w2z"

DENIED = "cannot write to s3://checkpoints/prod: 403 AccessDenied"
INOTIFY = "runc could not checkpoint pod billing/ledger-0: criu failed: type NOTIFY errno 0"

TERMINATED: Fields = {"type": "restore_pod", "kind": "", "reason": "nodeTermination"}
DUMPING: Fields = {"state": "processing", "progress": progress(16 * GIB, 38 * GIB)}
UNKNOWN: Fields = {"state": "processing", "progress": progress(700 * MIB)}
CREATED: Fields = {
    "state": "checkpoint_created",
    "outcome": checkpointed(6 * GIB, frozen=4.5, stored=False),
}

# Seconds ago, namespace, pod, node, and what differs from a checkpoint that waits.
ACTIONS: list[tuple[float, str, str, str, Fields]] = [
    (2, "shop", "checkout-7d9f8c6b5-x2x9k", "node-7", {}),
    (8, "ml", "trainer-0", "gpu-1", DUMPING),
    (11, "shop", "search-0", "node-3", UNKNOWN),
    (19, "shop", "cache-1", "node-7", CREATED),
    (42, "shop", SHOWN, "node-3", TERMINATED | {"state": "ready", "outcome": restored()}),
    (74, "billing", "ledger-0", "node-3", {"state": "error", "failure": failure(INOTIFY)}),
    (180, "billing", "invoices-4kx8p", "node-7", {"state": "error", "failure": failure(DENIED)}),
]
HEARTBEATS = ("web-0", "web-1", "web-2", "sessions-0", "queue-0", "queue-1", "mail-0")


async def make() -> None:
    """Make all pictures."""
    with (
        tempfile.TemporaryDirectory(prefix="screenshots-") as folder,
        nats_server(Path(folder)) as broker,
    ):
        async with site_in(Path(folder), broker) as site, chromium() as browser:
            shown = await _fill(site)
            await _picture(browser, site, "#actions", "page-desktop.png", DESKTOP)
            await _picture(browser, site, "#actions", "page-phone.png", PHONE)
            await _picture(browser, site, f"#action/{shown}", "page-action.png", DESKTOP)


async def _fill(site: Site) -> str:
    """Write the rows; the id of the action to show."""
    for ago, namespace, pod, node, fields in ACTIONS:
        await site.add(pod, namespace, cluster="prod", node=node, ago=ago, **fields)
    for number, pod in enumerate(HEARTBEATS):
        scale = 0.2 + number * 0.13
        phases = {name: seconds * scale for name, seconds in PHASES.items()}
        outcome = checkpointed(round(2048 * scale) * MIB, frozen=1.33 * scale, phases=phases)
        fields = {"reason": "heartbeat", "kind": "simple", "outcome": outcome, "state": "ready"}
        ago, node = 620 + number * 41, f"node-{number % 4 + 1}"
        await site.add(pod, "shop", cluster="prod", node=node, ago=ago, **fields)
    return await _add_shown(site)


async def _add_shown(site: Site) -> str:
    """A checkpoint that came through all states."""
    ago = 95.0
    began = now() - int(ago * SECOND)
    shown = await site.add(SHOWN, "shop", cluster="prod", node="node-7", ago=ago)
    outcome = checkpointed()
    after = {"processing": 0.02, "checkpoint_created": 1.52, "ready": 2.02}
    for state, seconds in after.items():
        await site.change(shown, state=state, time=began + int(seconds * SECOND))
    path = f"s3://checkpoints/prod/{shown}"
    await site.change(shown, outcome=outcome, path=path, completed=began + 2 * SECOND)
    return shown


async def _picture(
    browser: Browser, site: Site, address: str, name: str, size: tuple[int, int]
) -> None:
    width, height = size
    context = await browser.new_context(viewport={"width": width, "height": height})
    token = site.api.make_token("operations")
    await context.request.post(f"{site.url}/session", data={"token": token})
    page = await context.new_page()
    await page.goto(f"{site.url}/{address}")
    await expect(page.locator("h1:visible")).not_to_be_empty()
    await expect(page.locator("#rows tr, .phases").first).to_be_visible()
    await page.screenshot(path=DOCS / name)
    await context.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(make()))
