"""Reads what generations.c left in a memory image and says whether it is of one moment.

The workload writes generation g+1 over g in one order: page 0 first, in each page from its first
word to its last. Stopped anywhere, its words in that order are therefore a run of g+1 followed by
a run of g, and either run may be empty. That is what *consistent* means here, exactly: every page
is there once, and over all words in order the generation falls at most once, by exactly one, and
never rises. A page copied after the process went on makes a run too many, or too big a step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

PAGE = 4096
MAGIC = b"GERATION"
HEADER = struct.Struct("<8sQ")
WORD = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of one generation, from word ``first`` of page ``page`` on."""

    page: int
    first: int
    generation: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an image says. ``problems`` is empty if and only if it is of one moment."""

    pages: int
    generation: int
    problems: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """Whether all pages are of one moment."""
        return not self.problems


def check(image: Iterable[bytes | bytearray | memoryview], *, pages: int) -> Verdict:
    """Look for the workload's ``pages`` pages in a pages image, given in blocks of any size.

    Pages of anything else (its stack, its libraries) are passed over.
    """
    found: dict[int, bytes] = {}
    problems: list[str] = []
    for page in _pages(image):
        magic, index = HEADER.unpack_from(page)
        if magic != MAGIC:
            continue
        if index in found:
            problems.append(f"page {index} is there twice")
        found[index] = page[HEADER.size :]
    missing = [index for index in range(pages) if index not in found]
    if missing or len(found) != pages:
        problems.append(f"{len(found)} of {pages} pages, first missing: {missing[:3]}")
    runs = list(_runs(found))
    problems += _faults(runs)
    return Verdict(len(found), runs[0].generation if runs else 0, tuple(problems))


def _pages(image: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    rest = b""
    for block in image:
        data = rest + bytes(block)
        whole = len(data) - len(data) % PAGE
        for start in range(0, whole, PAGE):
            yield data[start : start + PAGE]
        rest = data[whole:]


def _runs(found: Mapping[int, bytes]) -> Iterator[Run]:
    """Where the generation changes, over all words in the order in which they are written."""
    current: int | None = None
    for index in sorted(found):
        words = found[index]
        if current is not None and words == WORD.pack(current) * (len(words) // WORD.size):
            continue
        for number, (generation,) in enumerate(WORD.iter_unpack(words)):
            if generation != current:
                current = generation
                yield Run(index, number, generation)


def _faults(runs: list[Run]) -> list[str]:
    if len(runs) <= 1 or (len(runs) == 2 and runs[0].generation == runs[1].generation + 1):
        return []
    first = ", ".join(f"{run.generation} from page {run.page} word {run.first}" for run in runs[:5])
    return [f"{len(runs)} runs of generations: {first}"]
