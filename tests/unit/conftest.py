"""Fixtures of all unit tests."""

from tests.api_rows import database

__all__ = ["database"]
