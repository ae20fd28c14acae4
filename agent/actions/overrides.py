"""What a request may change of the node's configuration, checked before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, Literal

from agent import tcp
from agent.compress import Compression, parse_compression
from agent.errors import InvalidArgument
from agent.frame import MAX_STREAMS
from agent.manifest import Options
from agent.settings import CriuOpts

# Bytes. CRIU has some 70 options; with every one of them this would be 3 KiB.
MAX_CRIU_OPTS: Final = 64 << 10

_CgroupsMode = Literal["soft", "full", "strict", "ignore"]

# enum criu_cg_mode of CRIU's rpc.proto, as far as runc knows it too.
_CGROUPS_MODES: Final[Mapping[str | int, _CgroupsMode]] = {
    "IGNORE": "ignore", 0: "ignore",
    "SOFT": "soft", 3: "soft",
    "FULL": "full", 4: "full",
    "STRICT": "strict", 5: "strict",
    "DEFAULT": "soft", 6: "soft",
}  # fmt: skip


def node_options(node: CriuOpts, *, pod: bool) -> Options:
    """What CRIU is told when a request says nothing."""
    said = node.connections
    if pod and not said:
        said = tcp.flags(tcp.FOR_PODS)
    return Options(**{**node.model_dump(exclude={"tcp"}), **said})


def criu_options(text: str | None, defaults: Options, field: str) -> Options:
    """``defaults`` with what a JSON object in the field names of CRIU's RPC says otherwise.

    Beside those it may have ``tcp``, a policy of agent.tcp.

    Args:
        field: of the request, for errors.

    Raises:
        InvalidArgument: it is no such object, or has an option or value that is not allowed; says
            which.
    """
    if text is None:
        return defaults
    given = _parse(text, field)
    values: dict[str, object] = {}
    for name, value in given.items():
        read = _ALLOWED.get(name)
        if read is None:
            reason = f"{_named(name)} may not be set; {', '.join(sorted(_ALLOWED))} may"
            raise InvalidArgument(field, reason)
        try:
            values[name] = read(value)
        except ValueError as error:
            raise InvalidArgument(field, f"{name}: {error}") from None
    values.pop("leave_running", None)
    return defaults.model_copy(update=_with_tcp(values, field))


def _with_tcp(values: dict[str, object], field: str) -> dict[str, object]:
    """What is said of TCP connections, as CRIU's own options and free of contradiction."""
    given = {name: bool(values[name]) for name in tcp.FIELDS if name in values}
    policy = values.pop("tcp", None)
    try:
        return values | tcp.chosen(None if policy is None else tcp.policy_of(policy), given)
    except ValueError as error:
        raise InvalidArgument(field, f"tcp: {error}") from None


def compression_of(text: str | None, default: str, field: str) -> Compression:
    """Raises InvalidArgument naming ``field``."""
    try:
        return parse_compression(text if text is not None else default)
    except InvalidArgument as error:
        raise InvalidArgument(field, error.reason) from None


def streams_of(number: int | None, default: int, field: str) -> int:
    """Raises InvalidArgument naming ``field``."""
    streams = default if number is None else number
    if not 1 <= streams <= MAX_STREAMS:
        raise InvalidArgument(field, f"{streams} is not from 1 to {MAX_STREAMS}")
    return streams


def _parse(text: str, field: str) -> dict[str, object]:
    if len(text.encode()) > MAX_CRIU_OPTS:
        raise InvalidArgument(field, f"is longer than {MAX_CRIU_OPTS} bytes")
    try:
        given = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except _Twice as twice:
        raise InvalidArgument(field, f"{_named(str(twice))} is there twice") from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(field, f"is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidArgument(field, 'is not a JSON object such as {"tcp_established": true}')
    return given


class _Twice(Exception):
    """A key; the one who wrote it and the one who reads it may mean different ones."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _always_on(value: object) -> bool:
    if not _flag(value):
        raise ValueError("the containers always run on")
    return True


def _number(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{_shown(value)} is no number from {least} to {most}")
        return value

    return read


def _cgroups_mode(value: object) -> _CgroupsMode:
    key = value.upper() if isinstance(value, str) else value
    # A bool is an int to Python, and no mode.
    if isinstance(key, str | int) and not isinstance(key, bool) and key in _CGROUPS_MODES:
        return _CGROUPS_MODES[key]
    names = ", ".join(str(name) for name in _CGROUPS_MODES)
    raise ValueError(f"{_shown(value)} is none of {names}")


def _named(key: str) -> str:
    """A key in a message: JSON may have half a character in it, which no message can carry."""
    text = key.encode(errors="backslashreplace").decode()
    return text if len(text) <= 40 else f"{text[:40]}..."


def _shown(value: object) -> str:
    """A value in a message, which should fit into a line."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


# Everything that reaches CRIU on every way that the agent has to it (agent/host/criu.py), or makes
# it fail. What else CRIU knows is the agent's own business (images, hooks, streaming), would let a
# request name files or programs for root, or has not been tried.
_ALLOWED: Final[Mapping[str, Callable[[object], object]]] = {
    "tcp": tcp.policy_of,
    "tcp_established": _flag,
    "tcp_close": _flag,
    "tcp_skip_in_flight": _flag,
    "ext_unix_sk": _flag,
    "shell_job": _flag,
    "file_locks": _flag,
    "link_remap": _flag,
    "manage_cgroups_mode": _cgroups_mode,
    "leave_running": _always_on,
    "ghost_limit": _number(1, (1 << 32) - 1),
    "log_level": _number(0, 4),
}
