"""The processes of a checkpoint, put together from CRIU's images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from agent.inspect.criu_images import CriuImages

# compel/include/uapi/task-state.h of CRIU.
STATES: Final = {1: "running", 2: "dead", 3: "stopped", 6: "zombie"}


@dataclass(frozen=True, slots=True)
class Process:
    """One process; pids are those inside its own pid namespace. Sizes in bytes.

    ``memory_mapped`` is all of its address space, ``memory_saved`` what of it is in the checkpoint:
    file mappings that were never written to are not, and shared memory is counted apart.
    """

    pid: int
    ppid: int
    name: str
    executable: str | None
    state: str
    threads: int
    memory_mapped: int
    memory_saved: int
    open_files: dict[str, int]


def processes(images: CriuImages) -> list[Process]:
    """All processes, parents before their children."""
    files = {one.id: one for one in images.all("files.img", "file_entry")}
    return [_process(images, one, files) for one in images.all("pstree.img", "pstree_entry")]


def shared_memory(images: CriuImages) -> int:
    """Bytes of memory that processes share, as it is in the checkpoint."""
    names = [image.name for image in images.member.images]
    return sum(_saved(images, name) for name in names if name.startswith("pagemap-shmem-"))


def _process(images: CriuImages, entry: Any, files: dict[int, Any]) -> Process:  # noqa: ANN401
    core = images.first(f"core-{entry.pid}.img", "core_entry")
    memory = images.first(f"mm-{entry.pid}.img", "mm_entry")
    executable = files.get(memory.exe_file_id) if memory else None
    return Process(
        pid=entry.pid,
        ppid=entry.ppid,
        name=core.tc.comm if core else "",
        executable=executable.reg.name if executable else None,
        state=STATES.get(core.tc.task_state, "unknown") if core else "unknown",
        threads=len(entry.threads),
        memory_mapped=sum(vma.end - vma.start for vma in memory.vmas) if memory else 0,
        memory_saved=_saved(images, f"pagemap-{entry.pid}.img"),
        open_files=_open_files(images, entry.pid),
    )


def _saved(images: CriuImages, pagemap: str) -> int:
    """Bytes in the pages image that a pagemap belongs to."""
    head = images.first(pagemap, "pagemap_head")
    pages = images.member.image(f"pages-{head.pages_id}.img") if head else None
    return pages.size if pages else 0


def _open_files(images: CriuImages, pid: int) -> dict[str, int]:
    """How many descriptors of each type: ``{"reg": 3, "pipe": 2}``, the most frequent first."""
    ids = images.first(f"ids-{pid}.img", "task_kobj_ids_entry")
    if ids is None:
        return {}
    entries = images.all(f"fdinfo-{ids.files_id}.img", "fdinfo_entry")
    return dict(Counter(_type(entry) for entry in entries).most_common())


def _type(entry: Any) -> str:  # noqa: ANN401
    kinds = entry.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number
    name: str = kinds[entry.type].name
    return name.lower()
