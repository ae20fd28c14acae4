"""The list of actions: live, filtered, and of whatever names."""

from __future__ import annotations

import uuid

import pytest
from playwright.async_api import expect

from tests.browser.sites import HOSTILE, MIB, Site, checkpointed, failure, progress
from tests.browser.visits import Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def namespace() -> str:
    """One that no other test has actions in."""
    return f"ns-{uuid.uuid4().hex[:12]}"


async def test_a_row_shows_what_is_in_the_database_and_follows_it(
    site: Site, visiting: Visiting, namespace: str
) -> None:
    action = await site.add("web", namespace)
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        row = tab.page.get_by_role("row", name=f"{namespace}/web")
        await expect(row).to_contain_text("initialized")
        await row.get_by_role("link").focus()
        box = await row.bounding_box()

        await site.change(action, state="processing", progress=progress(512 * MIB, 2048 * MIB))
        await expect(row).to_contain_text("processing")
        await expect(row).to_contain_text("dump: 512 MiB of 2.00 GiB, 410 MiB/s")
        assert await row.locator("progress").get_attribute("value") == "0.25"

        await site.change(action, state="checkpoint_created", outcome=checkpointed(stored=False))
        await expect(row).to_contain_text("checkpoint created")
        await expect(row).to_contain_text("1.33 s")

        await site.change(action, state="ready", outcome=checkpointed())
        await expect(row).to_contain_text("2.00 GiB → 1.46 GiB")
        await expect(row).to_contain_text("ratio 0.73")
        await expect(row).to_contain_text("took 2.00 s")
        # Updated in place: nothing has moved, and whoever was in the row still is.
        assert await row.bounding_box() == box
        assert await tab.focused() == f"{namespace}/web"
        await expect(tab.page.locator("#said")).to_have_text(
            f"checkpoint of {namespace}/web: ready"
        )


async def test_new_actions_come_on_top(site: Site, visiting: Visiting, namespace: str) -> None:
    await site.add("first", namespace, ago=3 * 86_400)
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        await expect(tab.page.locator("#count")).to_have_text("1 action")
        await site.add("second", namespace, state="error", failure=failure())
        links = tab.page.locator("#rows a")
        await expect(links).to_have_text([f"{namespace}/second", f"{namespace}/first"])
        await expect(tab.page.locator("#count")).to_have_text("2 actions")
        await expect(tab.page.locator("#rows tr").first).to_contain_text("criu failed")
        await expect(tab.page.locator("#rows time").last).to_have_text("3 d")
        assert tab.crowd == 1


async def test_filters_are_in_the_address(site: Site, visiting: Visiting, namespace: str) -> None:
    await site.add("web-1", namespace)
    await site.add("web-2", namespace, state="error", failure=failure())
    await site.add("cart", namespace, state="error", failure=failure(), node="node-b")
    links = "#rows a"
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        await expect(tab.page.locator(links)).to_have_count(3)
        await tab.page.get_by_label("State").select_option("error")
        await expect(tab.page.locator(links)).to_have_count(2)
        await tab.page.get_by_label("Pod").press_sequentially("web")
        await expect(tab.page.locator(links)).to_have_text([f"{namespace}/web-2"])
        await expect(tab.page.locator("#said")).to_have_text("1 action")
        address = tab.page.url.removeprefix(site.url)
        assert address == f"/?state=error&namespace={namespace}&pod=web#actions"

        await tab.open(address)
        await expect(tab.page.locator(links)).to_have_text([f"{namespace}/web-2"])
        await expect(tab.page.get_by_label("State")).to_have_value("error")
        await tab.page.get_by_role("combobox", name="Node").fill("node-b")
        await expect(tab.page.locator("#actions-empty")).to_have_text(
            "No action matches these filters."
        )
        await tab.page.get_by_role("button", name="Clear").click()
        await expect(tab.page).to_have_url(f"{site.url}/#actions")
        await expect(tab.page.locator("#actions-empty")).to_be_hidden()


async def test_older_actions_are_loaded_and_stay_live(
    site: Site, visiting: Visiting, namespace: str
) -> None:
    ids = [await site.add(f"web-{n:02}", namespace, ago=100 - n) for n in range(60)]
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        await expect(tab.page.locator("#rows tr")).to_have_count(50)
        await expect(tab.page.locator("#count")).to_have_text("the newest 50")
        await tab.page.get_by_role("button", name="Load more").click()
        await expect(tab.page.locator("#rows tr")).to_have_count(60)
        await expect(tab.page.get_by_role("button", name="Load more")).to_be_hidden()

        await site.change(ids[0], state="error", failure=failure())
        await expect(tab.page.locator("#rows tr").last).to_contain_text("criu failed")
        await site.add("newest", namespace)
        await expect(tab.page.locator("#rows tr")).to_have_count(61)
        await expect(tab.page.locator("#rows a").nth(1)).to_have_text(f"{namespace}/web-59")
        # A list of many pages is no reason to ask for two of them at once.
        assert tab.crowd == 1


async def test_a_hostile_name_is_text(site: Site, visiting: Visiting, namespace: str) -> None:
    action = await site.add(HOSTILE, namespace, state="ready", outcome=checkpointed())
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        await expect(tab.page.locator("#rows a")).to_have_text(f"{namespace}/{HOSTILE}")
        await tab.page.locator("#rows a").click()
        await expect(tab.page.get_by_role("heading", level=1)).to_have_text(
            f"Checkpoint of {namespace}/{HOSTILE}"
        )
        assert tab.page.url.endswith(f"#action/{action}")
        await tab.page.get_by_role("link", name="Nodes").click()
        await expect(tab.page.get_by_role("link", name=HOSTILE)).to_be_visible()
        assert await tab.page.locator("img").count() == 1
        assert await tab.page.title() == "Nodes · checkpoint-agent"


async def test_a_lost_connection_is_said_and_comes_back(
    site: Site, visiting: Visiting, namespace: str
) -> None:
    await site.add("web", namespace)
    async with visiting(site.token) as tab:
        await tab.open(f"/?namespace={namespace}#actions")
        connection = tab.page.locator("#connection")
        await tab.page.context.set_offline(True)
        await expect(connection).to_have_text("connection lost, trying again")
        # What is known stays on the screen.
        await expect(tab.page.locator("#rows tr")).to_have_count(1)
        await tab.page.context.set_offline(False)
        await expect(connection).to_have_text("live")
        tab.forgive("net::ERR_")
