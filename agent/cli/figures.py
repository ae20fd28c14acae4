"""Numbers and foreign text as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes with three significant digits: ``999 B``, ``1.23 GiB``."""
    unit = 0
    # 999.5, not 1024: so that "1000 KiB" does not need a fourth digit.
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{_three_digits(count) if unit else int(count)} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds with about three digits: ``0.31 ms``, ``45.1 ms``, ``1.23 s``, ``2 min 05 s``."""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.2f} ms" if milliseconds < 1 else f"{_three_digits(milliseconds)} ms"
    if seconds < 99.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def ratio(stored: int, raw: int) -> str:
    """How much of the raw bytes is stored: ``31 %``; a dash when there was nothing to store."""
    return f"{100 * stored / raw:.0f} %" if raw else "-"


def count(number: int, noun: str) -> str:
    """``1 chunk``, ``520 chunks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counted(models: Sequence[str]) -> str:
    """``2 x NVIDIA H100, 1 x NVIDIA A100``."""
    return ", ".join(f"{models.count(each)} x {each}" for each in dict.fromkeys(models))


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def printable(text: str) -> str:
    """``text`` with everything escaped that could drive a terminal, line breaks excepted.

    Names of processes, of checkpoints and CRIU's log come from whoever ran in the container.
    """
    return "".join(
        char
        if char.isprintable() or char == "\n"
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text.expandtabs(4)
    )
