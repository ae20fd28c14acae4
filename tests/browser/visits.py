"""Somebody's browser: one tab, signed in or not, and what it complains about."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

CHROMIUM = Path("/usr/bin/chromium")
# Root needs the first; the others keep it from calling anybody.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Milliseconds. Reached only when a test fails: the page asks once a second, and where an answer
# does not come it asks again after 15 s, as was seen on a machine with too much to do.
PATIENCE = 30_000


@dataclass
class Visit:
    """One tab.

    ``errors`` are the console's, exceptions and broken rules of the CSP included, and ``crowd`` is
    how many requests for the list of actions were under way at once; those that were given up are
    counted until the browser says so.
    """

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    crowd: int = 0
    _asking: set[Request] = field(default_factory=set)

    def watch(self) -> None:
        """Note what the browser complains about, and how much it asks."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("requestfinished", self._answered)
        self.page.on("requestfailed", self._answered)

    async def open(self, address: str = "/") -> None:
        """Go to a view by its query and fragment, and wait until it is live."""
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.url}{address}")
        await expect(self.page.locator("#connection")).to_have_attribute("data-state", "live")

    async def focused(self) -> str:
        """What has the focus, as a screen reader would call it."""
        return str(
            await self.page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.textContent.trim()"
            )
        )

    async def tab_to(self, name: str, *, most: int = 60) -> None:
        """Press Tab until the element of that name has the focus."""
        for _ in range(most):
            if await self.focused() == name:
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"{name!r} is not within {most} tabs")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        self._asking.add(request)
        lists = sum("/v2/actions?" in each.url for each in self._asking)
        self.crowd = max(self.crowd, lists)

    def _answered(self, request: Request) -> None:
        self._asking.discard(request)

    @property
    def unanswered(self) -> list[str]:
        """Addresses of what was asked for and has not come."""
        return sorted(request.url for request in self._asking)

    def forgive(self, part: str) -> None:
        """What the browser logs by itself of a refusal that the test is about."""
        self.errors[:] = [error for error in self.errors if part not in error]


# Makes a tab, signed in with a token or not.
Visiting = Callable[..., AbstractAsyncContextManager[Visit]]


def chromium_in(network: Path, directory: Path) -> Path:
    """A program, written into ``directory``, that is Chromium in a network namespace."""
    program = directory / "chromium"
    inside = shlex.join(["nsenter", f"--net={network}", str(CHROMIUM)])
    program.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    program.chmod(0o755)
    return program


@asynccontextmanager
async def chromium(program: Path = CHROMIUM) -> AsyncIterator[Browser]:
    """Debian's, without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        await browser.close()


@asynccontextmanager
async def visit(browser: Browser, url: str, token: str | None = None) -> AsyncIterator[Visit]:
    """A tab of its own, without what other tests have left; signed in with ``token``."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    try:
        if token is not None:
            answer = await context.request.post(f"{url}/session", data={"token": token})
            assert answer.status == 204, await answer.text()
        made = Visit(await context.new_page(), url)
        made.watch()
        try:
            yield made
        except AssertionError as error:
            error.add_note(f"without an answer: {made.unanswered}")
            error.add_note(f"the browser complains: {made.errors}")
            raise
        # Says which: this module's asserts show no values.
        assert made.errors == [], made.errors
    finally:
        await context.close()
