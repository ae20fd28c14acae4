"""Durations as Go and Kubernetes write them: ``90s``, ``5m``, ``1h30m``, ``0.5h``."""

from __future__ import annotations

import re
from typing import Final

# Each unit once and the bigger one first. Nine digits are thirty years of seconds.
_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_DURATION: Final = re.compile(rf"(?=.)(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_UNITS: Final = (3600.0, 60.0, 1.0)


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError: it is no duration."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{_shown(text)} is no duration such as 90s, 5m or 1h30m")
    return sum(
        float(number or 0) * unit for number, unit in zip(found.groups(), _UNITS, strict=True)
    )


def _shown(text: str) -> str:
    """What a pod's author wrote, as it fits into a line of a log."""
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
