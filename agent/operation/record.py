"""What is written down of an operation before it touches anything, for whoever has to undo it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Affected:
    """One container or cgroup that an operation works on.

    ``freezer`` only if it was not frozen when the operation began: it is thawed then. ``root``, pid
    and start time, is the first process of what CRIU dumps: when it is killed, connections may be
    locked and, until they are ``repaired``, sockets useless. ``network`` is a namespace that nobody
    can reach any more then, and that is opened. ``gpu_processes``, pid and start time of each, may
    be off their GPUs, and are brought back. ``of_engine``: a container engine has it made, and
    removes it when that fails; what has its id later is a cold start.
    """

    container: str | None = None
    runc_root: str | None = None
    freezer: str | None = None
    freezer_version: int = 0
    root: tuple[int, int] | None = None
    repaired: bool = False
    network: str | None = None
    gpu_processes: tuple[tuple[int, int], ...] = ()
    of_engine: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """Enough to undo an operation without the process that began it.

    A ``freeze`` only freezes: it has neither checkpoint nor store.
    """

    kind: Literal["checkpoint", "restore", "freeze", "delete"]
    operation: str
    checkpoint_id: str
    store: str
    target: str
    affected: tuple[Affected, ...] = ()


def undone(record: Record) -> Record:
    """The same when all runs again: what is frozen or off its GPUs later has another reason."""
    affected = tuple(
        replace(one, freezer=None, repaired=True, gpu_processes=()) for one in record.affected
    )
    return replace(record, affected=affected)


def share(one: Record, other: Record) -> bool:
    """Whether both work on the same container, cgroup or processes."""
    return not _claims(one).isdisjoint(_claims(other))


def _claims(record: Record) -> set[object]:
    claims: set[object] = {record.target}
    for each in record.affected:
        claims.update({each.freezer, *each.gpu_processes, (each.runc_root, each.container)})
    return claims - {None, (None, None)}


def read(path: Path) -> Record | None:
    """A record, also of another version of the agent, whose additions mean nothing to this one."""
    try:
        found = json.loads(path.read_bytes())
        # Before there were several of them, what is affected stood in the record itself.
        affected = tuple(_affected(each) for each in found.get("affected", [found]))
        return Record(**{**_known(Record, found), "affected": affected})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _affected(found: dict[str, Any]) -> Affected:
    known = _known(Affected, found)
    # JSON has no tuples.
    processes = tuple(map(_process, known.pop("gpu_processes", ())))
    root = known.pop("root", None)
    return Affected(**known, gpu_processes=processes, root=_process(root) if root else None)


def _process(found: list[int]) -> tuple[int, int]:
    pid, started = found
    return int(pid), int(started)


def _known(model: type[Affected | Record], found: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(model)}
    return {name: value for name, value in found.items() if name in names}
