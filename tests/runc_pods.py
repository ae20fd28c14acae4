"""Pods of plain runc (bench/pods.py), and how requests name them."""

from __future__ import annotations

from bench.pods import run_container, uid_of
from tests.nodes import Json

__all__ = ["named", "run_container", "uid_of"]


def named(pod: str) -> Json:
    """A pod as a request names it."""
    return {"pod": {"namespace": "default", "name": pod}}
