"""What one table of the configuration file is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """Read once, never changed, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
