"""Stores that fail where they are told to, as full disks and lost connections do."""

from __future__ import annotations

import itertools
import threading

from agent.errors import StoreFailed
from agent.store.base import Store
from tests.fakes.slow_store import Step, WrappedStore


def failing(inner: Store, step: Step, at: int = 0) -> Store:
    """``inner``, where every ``step`` fails from the one numbered ``at`` on, counted from 0."""
    count = itertools.count()
    lock = threading.Lock()

    def pass_(reached: Step) -> None:
        if reached != step:
            return
        with lock:
            number = next(count)
        if number >= at:
            raise StoreFailed(step, inner.url, f"step {number} failed")

    return WrappedStore(inner, pass_=pass_)
