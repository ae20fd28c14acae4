"""The judge of consistency: one moment passes, every kind of tear does not."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from bench.generations import MAGIC, PAGE, check

PAGES = 8


def page(index: int, *words: int) -> bytes:
    """A page whose generations are ``words``; the last one fills the rest."""
    filled = [*words, *[words[-1]] * (510 - len(words))]
    return MAGIC + struct.pack("<Q", index) + struct.pack("<510Q", *filled)


def image(*generations: int) -> list[bytes]:
    """A page of each generation, in order."""
    return [page(index, generation) for index, generation in enumerate(generations)]


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(image(*[4] * PAGES), id="between two sweeps"),
        pytest.param(image(5, 5, 4, 4, 4, 4, 4, 4), id="between two pages"),
        pytest.param([*image(5, 5), page(2, 5, 5, 5, 4), *image(*[4] * 8)[3:]], id="in a page"),
        pytest.param([page(0, 5, 4), *image(*[4] * 8)[1:]], id="in the first page"),
    ],
)
def test_an_image_of_one_moment_passes(pages: list[bytes]) -> None:
    verdict = check(pages, pages=PAGES)

    assert verdict.consistent
    assert verdict.pages == PAGES


def spoil(position: int, replacement: bytes | None) -> Callable[[list[bytes]], list[bytes]]:
    """Replace or drop one page."""
    kept = [] if replacement is None else [replacement]
    return lambda pages: [*pages[:position], *kept, *pages[position + 1 :]]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(spoil(6, page(6, 5)), id="a page of the next sweep"),
        pytest.param(spoil(7, page(7, 9)), id="the last page much younger"),
        pytest.param(spoil(0, page(0, 6)), id="three generations"),
        pytest.param(spoil(0, page(0, 4)), id="an old page first"),
        pytest.param(spoil(5, page(5, 4, 4, 5, 4)), id="one young word in a page"),
        pytest.param(spoil(5, page(5, 3, 4)), id="one old word in a page"),
        pytest.param(spoil(7, page(7, 4, 4, 3)), id="the tail older"),
        pytest.param(spoil(3, None), id="a page missing"),
        pytest.param(spoil(3, bytes(PAGE)), id="a page zeroed"),
        pytest.param(spoil(3, page(2, 4)), id="a page twice"),
        pytest.param(spoil(3, page(11, 4)), id="a page that should not be"),
    ],
)
def test_every_tear_is_seen(change: Callable[[list[bytes]], list[bytes]]) -> None:
    whole = image(5, 5, 4, 4, 4, 4, 4, 4)
    assert check(whole, pages=PAGES).consistent

    assert check(change(whole), pages=PAGES).problems


def test_two_generations_apart_are_not_one_moment() -> None:
    assert not check(image(6, 6, 4, 4, 4, 4, 4, 4), pages=PAGES).consistent


@pytest.mark.parametrize("size", [1000, PAGE, 3 * PAGE + 17])
def test_blocks_of_any_size_and_other_pages_between(size: int) -> None:
    data = bytes(PAGE) + b"".join(image(5, 5, 4, 4)) + b"x" * PAGE + b"".join(image(*[4] * 8)[4:])

    verdict = check([data[at : at + size] for at in range(0, len(data), size)], pages=PAGES)

    assert verdict.problems == ()
    assert verdict.generation == 5


def test_an_image_without_the_workload_is_not_consistent() -> None:
    assert not check([bytes(16 * PAGE)], pages=PAGES).consistent
