"""Fixtures of all integration tests."""

from tests.api_stages import postgres_stage, sqlite_stage, stage
from tests.containers import runc
from tests.integration.connections import busy
from tests.integration.lab import lab

__all__ = ["busy", "lab", "postgres_stage", "runc", "sqlite_stage", "stage"]
