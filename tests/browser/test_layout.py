"""Every view on a phone and on a desk, by day and by night: nothing sticks out, all can be read."""

from __future__ import annotations

from typing import Any, Final, Literal

import pytest
from playwright.async_api import Page, expect

from tests.browser.sites import Site, checkpointed, failure, progress
from tests.browser.visits import Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A phone, and both sides of the widths where the layout changes.
WIDTHS = (380, 720, 860, 1080, 1081, 1280)
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")

LONG = "prometheus-kube-prometheus-stack-prometheus-operator-0"
NAMESPACE = "infrastructure-and-observability-of-the-whole-cluster"

# WCAG's contrast of every visible text with what is behind it, where that is below 4.5. What is
# disabled is exempt. A canvas makes numbers of colours in whatever notation.
TOO_FAINT = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    const isSeen = texts.currentNode.data.trim() && element.checkVisibility();
    if (!isSeen || element.closest(":disabled, .unseen, noscript")) continue;
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${texts.currentNode.data.trim()}`);
  }
  return found;
}"""


async def add_actions(site: Site) -> list[str]:
    """One in every state, with names as long as they come."""
    fields: dict[str, dict[str, Any]] = {
        "initialized": {},
        "processing": {"progress": progress(7 << 30, 30 << 30), "gpu": "NVIDIA H100 80GB HBM3"},
        "checkpoint_created": {"outcome": checkpointed(stored=False)},
        "ready": {
            "outcome": checkpointed(),
            "path": f"s3://checkpoints/{LONG}/{LONG}",
            "upload": {"pod_spec": {"containers": [{"image": LONG * 3}]}},
        },
        "error": {"failure": failure(f"pod {NAMESPACE}/{LONG} could not be checkpointed")},
    }
    node = "ip-10-0-0-1_eu-central-1_internal"
    return [
        await site.add(LONG, NAMESPACE, state=state, node=node, **each)
        for state, each in fields.items()
    ]


async def check(page: Page, what: str) -> None:
    """At every width, and in both schemes."""
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{what} is {wide} pixels wider than {width}"
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        assert await page.evaluate(TOO_FAINT) == [], f"{what}, {scheme}"


async def test_every_view(site: Site, visiting: Visiting) -> None:
    views = [
        ("/#nodes", ".pod-line"),
        (f"/?namespace={NAMESPACE}#actions", "#rows tr"),
        ("/?namespace=nobody#actions", "#actions-empty"),
        *((f"/#action/{action}", ".part-known") for action in await add_actions(site)),
    ]
    async with visiting(site.token) as tab:
        for address, complete in views:
            await tab.page.goto(f"{site.url}{address}")
            await expect(tab.page.locator(complete).first).to_be_visible()
            await check(tab.page, address)


async def test_the_dialogs(site: Site, visiting: Visiting) -> None:
    path = f"s3://checkpoints/{LONG}"
    action = await site.add(LONG, NAMESPACE, state="ready", outcome=checkpointed(), path=path)
    async with visiting(site.token) as tab:
        for address, button in {
            "/#nodes": "Checkpoint default/web",
            f"/#action/{action}": "Restore",
        }.items():
            await tab.page.goto(f"{site.url}{address}")
            await tab.page.get_by_role("button", name=button).click()
            await check(tab.page, button)
            await tab.page.keyboard.press("Escape")


async def test_the_way_in(site: Site, visiting: Visiting) -> None:
    async with visiting() as tab:
        await tab.page.goto(site.url)
        await tab.page.get_by_label("Token").fill("cpa_wrong")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.get_by_role("alert")).to_be_visible()
        await check(tab.page, "the way in")
        tab.forgive("401")
