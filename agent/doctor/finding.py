"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    ``fail`` means that checkpoints or restores do not work on this machine, ``warn`` that some
    workloads or options do not, or slower. ``advice`` says what to do, and is empty for ``ok``.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""
