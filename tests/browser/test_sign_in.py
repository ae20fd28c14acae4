"""The way in, and out again."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.sites import Site
from tests.browser.visits import Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What Chromium logs by itself of the sign-in page: it answers a request without a token.
REFUSED = "401 (Unauthorized)"


async def give(tab: Visit, token: str) -> None:
    await tab.page.get_by_label("Token").fill(token)
    await tab.page.keyboard.press("Enter")


async def test_a_wrong_token_is_refused_in_words(site: Site, visiting: Visiting) -> None:
    async with visiting() as tab:
        await tab.page.goto(site.url)
        await expect(tab.page.get_by_label("Token")).to_be_focused()
        await give(tab, "cpa_000000000000_wrong")
        await expect(tab.page.get_by_role("alert")).to_have_text(
            "This token is not known here, or it was revoked."
        )
        tab.forgive(REFUSED)


async def test_too_many_attempts_say_how_long_to_wait(site: Site, visiting: Visiting) -> None:
    async with visiting() as tab:
        await tab.page.route(
            "**/session", lambda route: route.fulfill(status=429, headers={"Retry-After": "7"})
        )
        await tab.page.goto(site.url)
        await give(tab, "cpa_000000000000_wrong")
        await expect(tab.page.get_by_role("alert")).to_have_text(
            "Too many attempts. Try again in 7 s."
        )
        tab.forgive(REFUSED)
        tab.forgive("429")


async def test_a_token_leads_where_the_link_was_meant_to(site: Site, visiting: Visiting) -> None:
    async with visiting() as tab:
        await tab.page.goto(f"{site.url}/?state=error#nodes")
        await give(tab, f" {site.token} ")
        await expect(tab.page.get_by_role("heading", name="node-a")).to_be_visible()
        assert tab.page.url == f"{site.url}/?state=error#nodes"
        await expect(tab.page.locator("#who")).to_have_text("tests")
        tab.forgive(REFUSED)


async def test_signing_out(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        await tab.open()
        await tab.page.get_by_role("button", name="Sign out").click()
        await expect(tab.page.get_by_label("Token")).to_be_visible()
        assert await tab.page.context.cookies() == []
        tab.forgive(REFUSED)


async def test_a_session_that_has_ended_leads_to_the_way_in(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        await tab.open()
        await tab.page.context.clear_cookies()
        await expect(tab.page.get_by_label("Token")).to_be_visible()
        tab.forgive(REFUSED)
