"""One action: its phases, its errors, and how it comes to its end."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.sites import MIB, Site, checkpointed, failure, progress, restored
from tests.browser.visits import Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHASES = {"prepare": 0.5, "start": 0.5, "dump": 2.0, "store": 0.75, "unaccounted": 0.25}


async def bars(page: Page) -> dict[str, tuple[float, float]]:
    """Where each phase of the chart begins and how long it is, in percent of the width."""
    found = await page.eval_on_selector_all(
        ".phase-bar",
        "all => all.map(bar => ['data-phase', 'x', 'width'].map(name => bar.getAttribute(name)))",
    )
    return {name: (float(x.rstrip("%")), float(width.rstrip("%"))) for name, x, width in found}


async def test_the_chart_of_phases_has_their_numbers(site: Site, visiting: Visiting) -> None:
    outcome = checkpointed(frozen=2.0, phases=PHASES)
    action = await site.add("web", state="ready", outcome=outcome, path="s3://checkpoints/web")
    async with visiting(site.token) as tab:
        await tab.page.goto(f"{site.url}/#action/{action}")
        chart = tab.page.get_by_role("img", name=re.compile("in phases"))
        await expect(chart).to_have_attribute(
            "aria-label",
            "4.00 s in phases: prepare 500 ms, start 500 ms, dump 2.00 s, store 750 ms, "
            "unaccounted 250 ms; frozen 2.00 s",
        )
        assert await bars(tab.page) == {
            "prepare": (0.0, 12.5),
            "start": (12.5, 12.5),
            "dump": (25.0, 50.0),
            "store": (75.0, 18.75),
            "unaccounted": (93.75, 6.25),
        }
        frozen = tab.page.locator(".frozen-part")
        await expect(frozen).to_have_attribute("x", "25.000%")
        await expect(frozen).to_have_attribute("width", "50.000%")
        await expect(tab.page.locator(".phase-bar[data-phase=unaccounted]")).to_have_attribute(
            "fill", "url(#hatching)"
        )
        table = tab.page.get_by_role("table", name="Phases and how long they took")
        await expect(table.get_by_role("row", name="dump")).to_contain_text("2.00 s50.0 %")
        await expect(table.get_by_role("row", name="all 4")).to_contain_text("4.00 s100.0 %")
        await expect(table.get_by_role("row", name="frozen")).to_contain_text("2.00 s50.0 %")


async def test_an_action_is_followed_to_its_end(site: Site, visiting: Visiting) -> None:
    action = await site.add("live")
    async with visiting(site.token) as tab:
        await tab.open(f"/#action/{action}")
        head = tab.page.locator(".head")
        await expect(head).to_contain_text("waits for its turn")
        await site.change(action, state="processing", progress=progress(512 * MIB))
        await expect(head).to_contain_text("dump: 512 MiB, 410 MiB/s")
        assert await head.locator("progress").get_attribute("value") is None
        await expect(tab.page.get_by_role("button", name="Restore")).to_be_hidden()
        outcome = checkpointed()
        await site.change(action, state="ready", outcome=outcome, path="s3://checkpoints/live")
        await expect(head).to_contain_text("ready")
        # The stream has ended, and nobody asks for another one.
        await expect(tab.page.locator("#connection")).to_have_text("up to date")
        await expect(tab.page.locator(".timeline .label")).to_have_text(
            ["initialized", "processing", "ready"]
        )
        await expect(tab.page.locator(".members li")).to_have_text(["app", "proxy"])
        await expect(tab.page.locator(".part-request")).to_contain_text('"pod_name": "live"')
        await tab.page.get_by_role("button", name="Copy the path").click()
        await expect(tab.page.get_by_role("button", name="Copy the path")).to_have_text(
            re.compile("Copied|Selected")
        )


async def test_an_error_says_all_that_helps(site: Site, visiting: Visiting) -> None:
    action = await site.add("broken", state="error", failure=failure("it is <b>broken</b>"))
    async with visiting(site.token) as tab:
        await tab.page.goto(f"{site.url}/#action/{action}")
        part = tab.page.locator(".part-failure")
        await expect(part.locator(".message")).to_have_text("it is <b>broken</b>")
        await expect(part).to_contain_text("it runs as before; nothing was stored")
        await expect(part).to_contain_text("the end of CRIU's log names what it cannot dump")
        await expect(part.locator("pre")).to_contain_text("fsnotify: cannot open handle")


async def test_a_checkpoint_is_restored(site: Site, visiting: Visiting) -> None:
    outcome = checkpointed()
    action = await site.add("web", state="ready", outcome=outcome, path="s3://checkpoints/web")
    async with visiting(site.token) as tab:
        await tab.page.goto(f"{site.url}/#action/{action}")
        await tab.page.get_by_role("button", name="Restore").click()
        dialog = tab.page.get_by_role("dialog", name="Restore")
        await dialog.get_by_label("Reason").select_option("node unschedulable")
        await dialog.get_by_label("New name").fill("web-again")
        await dialog.get_by_role("button", name="Restore").click()
        await expect(tab.page.get_by_role("heading", level=1)).to_have_text(re.compile("^Restore"))
        await expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
        made = site.api.get(f"/v2/actions/{tab.page.url.rpartition('/')[2]}").json()
        assert made["type"] == "restore_pod"
        assert made["reason"] == "nodeUnschedulable"
        assert made["details"]["restored_from"] == action
        assert made["details"]["request"]["overrides"]["pod_name"] == "web-again"

        await site.change(made["action_id"], state="ready", outcome=restored())
        await expect(tab.page.locator(".head")).to_contain_text("ready")
        await tab.page.get_by_role("link", name=action).click()
        await expect(tab.page.get_by_role("heading", level=1)).to_have_text(
            "Checkpoint of default/web"
        )


async def test_an_action_that_there_is_not(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        await tab.page.goto(f"{site.url}/#action/nobody's")
        await expect(tab.page.locator("#view-action").get_by_role("alert")).to_have_text(
            "No action has the id nobody's."
        )
        tab.forgive("404")
