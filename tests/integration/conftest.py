"""Fixtures of all integration tests."""

from tests.containers import runc
from tests.integration.lab import lab

__all__ = ["lab", "runc"]
