"""How the page begins, when not all of it comes at once."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.browser.sites import Site
from tests.browser.visits import Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("part", ["app.js", "rows.js", "shell.css"])
async def test_a_part_that_does_not_come(site: Site, visiting: Visiting, part: str) -> None:
    """The page is loaded again; it would stand at `connecting` for ever, or have no looks."""
    given_up: list[str] = []

    async def once(route: Route) -> None:
        if given_up:
            await route.continue_()
        else:
            given_up.append(route.request.url)
            await route.abort("connectionreset")

    async with visiting(site.token) as tab:
        await tab.page.route(f"**/page/{part}", once)
        async with tab.page.expect_response(f"**/page/{part}"):
            await tab.page.goto(f"{site.url}/#nodes")
        await expect(tab.page.locator(".pod-line").first).to_be_visible()
        assert len(given_up) == 1
        tab.forgive("ERR_CONNECTION_RESET")
