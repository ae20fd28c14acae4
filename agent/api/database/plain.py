"""What nodes say, as every database can keep it.

An event that could not be stored would be read again for ever, and nothing after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute


def fitting(text: str, column: InstrumentedAttribute[Any]) -> str:
    """What a column can keep of a text: as many bytes as it may have letters.

    PostgreSQL's indexes take rows of 2704 bytes, which a thousand letters can exceed.
    """
    written = str(plain(text)).encode()[: column.type.length]
    return written.decode(errors="ignore")


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON without the character 0, and without half characters."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
