"""Archives of containers for tests: made with tarfile, or looked into with it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.archive.blocks import TarReader
from agent.archive.layer import Marked, Unmarked
from agent.archive.take import ImportRequest, ImportResult, import_archive
from agent.frame import Data
from agent.store.base import Store
from tests.pipelines import threads

CONFIG = {"id": "c" * 64, "name": "counter", "rootfsImageName": "localhost/counter:1"}
SPEC = {"ociVersion": "1.0.2", "process": {"terminal": False}, "root": {"path": "rootfs"}}

# The least that an archive has to have.
FILES: Mapping[str, bytes] = {
    "config.dump": json.dumps(CONFIG).encode(),
    "spec.dump": json.dumps(SPEC).encode(),
    "checkpoint/inventory.img": b"inventory",
    "checkpoint/pstree.img": b"pstree",
    "checkpoint/pages-1.img": b"p" * 300_000,
}


class Bytes:
    """Bytes as a source that gives at most ``step`` at a time."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self._file, self._step = io.BytesIO(data), step

    def read(self, length: int, /) -> bytes:
        return self._file.read(min(length, self._step))


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """A file for :func:`tar`, with these fields of TarInfo."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def tar(files: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    """A tar in pax format."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for info, data in files:
            each = member(info) if isinstance(info, str) else info
            if each.isreg():
                each.size = len(data)
            made.addfile(each, io.BytesIO(data))
    return out.getvalue()


def archive(**changed: bytes | None) -> bytes:
    """A whole archive; files are replaced or, with None, left out."""
    return tar(_files(changed).items())


def _files(changed: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return {name: data for name, data in {**FILES, **changed}.items() if data is not None}


def content(data: bytes | Path) -> dict[str, bytes]:
    """The plain files of an archive, however compressed but with zstd, by name."""
    source = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    with source, tarfile.open(fileobj=source) as opened:
        files = [info for info in opened if info.isreg()]
        return {info.name: _read(opened, info) for info in files}


def _read(opened: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(info)
    assert file is not None
    return file.read()


def entries(data: bytes) -> dict[str, tarfile.TarInfo]:
    """Everything in a tar, by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        return {info.name: info for info in opened}


def unmarked(layer: bytes, step: int = 1 << 20) -> tuple[bytes, Unmarked]:
    """What others get of a layer."""
    made = Unmarked(TarReader(Bytes(layer, step)))
    return joined(made.pieces(len(layer))), made


def marked(layer: bytes, deleted: Iterable[str] = (), *, is_layer: bool = True) -> bytes:
    """A layer out of what others have."""
    made = Marked(TarReader(Bytes(layer)), is_layer=is_layer)
    return joined(made.pieces()) + joined(made.marks(deleted))


def joined(pieces: Iterable[Data]) -> bytes:
    """All pieces in one."""
    return b"".join(bytes(piece) for piece in pieces)


def spec(**changed: object) -> bytes:
    """A config.json."""
    return json.dumps({**SPEC, **changed}).encode()


def config(**changed: object) -> bytes:
    """A config.dump."""
    return json.dumps({**CONFIG, **changed}).encode()


async def imported(store: Store, data: bytes, directory: Path, **more: str) -> ImportResult:
    """Import an archive that lies in ``directory``, with the state beside it."""
    path = directory / "archive"
    path.write_bytes(data)
    request = ImportRequest(str(path), store, **more)  # type: ignore[arg-type]
    return await import_archive(request, state_dir=directory / "state")


def nothing_left(store: Store, directory: Path) -> None:
    """After an import that has failed."""
    assert store.list("") == []
    assert os.listdir(directory / "state" / "operations") == []
    assert threads() == []
