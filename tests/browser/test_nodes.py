"""Nodes and their pods, without a mouse, and for those who may only look."""

from __future__ import annotations

import pytest
from playwright.async_api import Request, Route, expect

from tests.browser.sites import Site, checkpointed
from tests.browser.visits import Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUTTON = "Checkpoint default/web"


async def test_what_runs_where(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        await tab.open("/#nodes")
        await expect(tab.page.locator("#nodes-count")).to_have_text("2 nodes, 3 pods")
        card = tab.page.get_by_role("article").filter(has_text="node-a")
        await expect(card).to_contain_text("0.3.0, up 9 d")
        await expect(card).to_contain_text("1 running")
        await expect(card).to_contain_text("running, registry.example/app:1.4")
        stopped = card.get_by_role("button", name="Checkpoint default/done")
        await expect(stopped).to_be_disabled()
        await expect(stopped).to_have_attribute("title", "none of its containers runs")
        gpus = tab.page.get_by_role("article").filter(has_text="gpu-1").locator(".gpus")
        await expect(gpus).to_have_text(
            "4 \u00d7 NVIDIA H100 80GB HBM380.0 GiB each, driver 580.65"
        )


async def test_a_checkpoint_by_keyboard_alone(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        keys = tab.page.keyboard
        sent: list[Request] = []
        tab.page.on("request", lambda each: sent.append(each) if each.method == "POST" else None)
        await tab.open("/#nodes")
        await expect(tab.page.get_by_role("button", name=BUTTON)).to_be_visible()
        await keys.press("Tab")
        assert await tab.focused() == "Skip to the content"
        await keys.press("Enter")
        await tab.tab_to(BUTTON)
        await keys.press("Enter")
        dialog = tab.page.get_by_role("dialog", name="Checkpoint")
        await expect(dialog).to_contain_text("default/web on node-a")
        await keys.press("Escape")
        await expect(dialog).to_be_hidden()
        assert await tab.focused() == BUTTON

        await keys.press("Enter")
        await expect(dialog.get_by_label("Kind")).to_be_focused()
        await keys.press("ArrowDown")
        await keys.press("Tab")
        await keys.type("lz")
        await keys.press("Tab")
        await keys.type("8")
        await keys.press("Tab")
        await keys.press("Space")
        await keys.press("Enter")
        heading = tab.page.get_by_role("heading", level=1)
        await expect(heading).to_have_text("Checkpoint of default/web")
        await expect(heading).to_be_focused()
        [request] = sent
        assert len(request.headers["idempotency-key"]) == 36
        made = site.api.get(f"/v2/actions/{tab.page.url.rpartition('/')[2]}").json()
        assert made["details"]["kind"] == "rootfs"
        asked = made["details"]["request"]["overrides"]
        assert (asked["compression"], asked["streams"], asked["asynchronous"]) == ("lz4", 8, True)

        await tab.page.go_back()
        await expect(tab.page.get_by_role("button", name=BUTTON)).to_be_focused()


async def test_a_refusal_is_said_and_sent_again_as_the_same(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        keys: list[str] = []
        answers = [
            (500, {"message": "no broker", "details": {"hint": "try again"}}),
            (400, {"message": "streams: 65 is not from 1 to 64"}),
        ]

        async def refuse(route: Route) -> None:
            keys.append(route.request.headers["idempotency-key"])
            status, body = answers[len(keys) - 1]
            await route.fulfill(status=status, json=body)

        await tab.page.route("**/v2/checkpoint/pod", refuse)
        await tab.open("/#nodes")
        await tab.page.get_by_role("button", name=BUTTON).click()
        dialog = tab.page.get_by_role("dialog", name="Checkpoint")
        await dialog.get_by_role("button", name="Checkpoint").click()
        await expect(dialog.get_by_role("alert")).to_have_text("no broker try again")
        await dialog.get_by_role("button", name="Checkpoint").click()
        await expect(dialog.get_by_role("alert")).to_have_text("streams: 65 is not from 1 to 64")
        assert keys[0] == keys[1]
        tab.forgive("Failed to load resource")


async def test_who_may_only_read_has_no_button_that_works(site: Site, visiting: Visiting) -> None:
    outcome = checkpointed()
    action = await site.add("web", state="ready", outcome=outcome, path="s3://checkpoints/web")
    async with visiting(site.reader) as tab:
        await tab.open("/#nodes")
        buttons = tab.page.get_by_role("button", name="Checkpoint")
        await expect(buttons).to_have_count(3)
        for number in range(3):
            await expect(buttons.nth(number)).to_be_disabled()
            await expect(buttons.nth(number)).to_have_attribute(
                "title", "your token has no scope checkpoint"
            )
        await expect(tab.page.locator("#nodes-note")).to_have_text(
            "Only to look at: your token has no scope checkpoint."
        )
        await tab.page.goto(f"{site.url}/#action/{action}")
        restore = tab.page.get_by_role("button", name="Restore")
        await expect(restore).to_be_disabled()
        await expect(restore).to_have_attribute("title", "your token has no scope restore")


async def test_what_the_server_lacks_is_said(site: Site, visiting: Visiting) -> None:
    async with visiting(site.token) as tab:
        lacking = {"message": "failed to connect to the event stream: gone", "code": "500"}
        await tab.page.route("**/v2/nodes", lambda each: each.fulfill(status=500, json=lacking))
        await tab.page.goto(f"{site.url}/#nodes")
        await expect(tab.page.locator("#nodes-problem")).to_have_text(lacking["message"])
        await expect(tab.page.locator("#connection")).to_have_text("connection lost, trying again")
        await tab.page.unroute("**/v2/nodes")
        await expect(tab.page.locator("#nodes-problem")).to_be_hidden()
        await expect(tab.page.locator("#connection")).to_have_text("live")
        tab.forgive("500")
