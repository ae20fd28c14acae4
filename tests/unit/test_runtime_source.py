"""Which checkpoints a pod is given: its own namespace's, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.chunks import read_manifest
from agent.errors import CheckpointCorrupt, CheckpointNotFound, InvalidArgument
from agent.manifest import MANIFEST, Manifest, Pod, to_bytes
from agent.pods.annotations import identify
from agent.runtime.source import Sources
from agent.settings import Settings
from agent.settings.model import Storage
from agent.store.file import FileStore
from tests.checkpoints import replace, write_checkpoint


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(Settings(storage=Storage(store=str(tmp_path / "store"))))


def _config(annotations: object) -> bytes:
    return json.dumps({"root": {}, "annotations": annotations}).encode()


def _containerd(namespace: str, uid: str = "u1") -> dict[str, str]:
    return {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
        "io.kubernetes.cri.sandbox-uid": uid,
        "io.kubernetes.cri.sandbox-namespace": namespace,
        "io.kubernetes.cri.sandbox-name": "web",
    }


def _crio(namespace: str) -> dict[str, str]:
    labels = {
        "io.kubernetes.pod.uid": "u1",
        "io.kubernetes.pod.namespace": namespace,
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.container.name": "app",
    }
    return {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "s1",
        "io.kubernetes.cri-o.Labels": json.dumps(labels),
        # What a pod's author can write.
        "io.kubernetes.pod.namespace": "mine",
    }


def _write(
    store: FileStore,
    checkpoint_id: str = "sample",
    *,
    annotations: object = None,
    created_at: str = "2025-01-02T03:04:05Z",
    **changed: object,
) -> Manifest:
    images = {"config.json": _config(annotations)}
    manifest = write_checkpoint(
        store, images, checkpoint_id=checkpoint_id, created_at=created_at
    ).model_copy(update=changed)
    replace(store, f"{checkpoint_id}/{MANIFEST}", to_bytes(manifest))
    return manifest


def test_of_its_own_namespace(store: FileStore, sources: Sources) -> None:
    manifest = _write(store, pod=Pod(uid="u1", namespace="mine", name="web"))
    assert sources.find(f"{store.url}/sample", "mine").manifest == manifest
    with pytest.raises(InvalidArgument, match="no checkpoint of namespace other"):
        sources.find(f"{store.url}/sample", "other")


@pytest.mark.parametrize(
    "annotations", [_containerd("mine"), _containerd("mine", ""), _crio("mine")]
)
def test_of_a_pods_container_that_was_taken_by_its_id(
    store: FileStore, sources: Sources, annotations: object
) -> None:
    _write(store, annotations=annotations)
    sources.find(f"{store.url}/sample", "mine")
    with pytest.raises(InvalidArgument, match="no checkpoint of namespace other"):
        sources.find(f"{store.url}/sample", "other")


def test_an_authors_word_is_not_crios(store: FileStore, sources: Sources) -> None:
    _write(store, annotations=_crio("theirs"))
    with pytest.raises(InvalidArgument, match="no checkpoint of namespace mine"):
        sources.find(f"{store.url}/sample", "mine")


@pytest.mark.parametrize(
    "annotations",
    [
        # Where the runtime's handler lets what an author writes through, with CRI-O's keys.
        {**_crio("theirs"), **_containerd("mine")},
        # And with containerd's, on CRI-O.
        {**_crio("mine"), "io.kubernetes.cri.sandbox-namespace": "theirs",
         "io.kubernetes.cri-o.ImageName": "a\nb"},
    ],
)  # fmt: skip
def test_one_of_both_engines_is_nobodys(
    store: FileStore, sources: Sources, annotations: dict[str, str]
) -> None:
    _write(store, annotations=annotations)
    for namespace in ("mine", "theirs"):
        with pytest.raises(InvalidArgument, match="no checkpoint of namespace"):
            sources.find(f"{store.url}/sample", namespace)


def test_who_passes_for_another_engines_is_nobody() -> None:
    """Whatever the author of a pod on containerd writes, it cannot be of another namespace."""
    both = {**_crio("theirs"), **_containerd("mine")}
    assert identify(both, []) is None
    # CRI-O's own annotations for authors may be there with any engine.
    harmless = {**_containerd("mine"), "io.kubernetes.cri-o.userns-mode": "auto"}
    identity = identify(harmless, [])
    assert identity is not None
    assert identity.pod.namespace == "mine"


@pytest.mark.parametrize("annotations", [None, {}, [], {"io.kubernetes.cri.container-type": 1}])
def test_of_no_pod(store: FileStore, sources: Sources, annotations: object) -> None:
    _write(store, annotations=annotations)
    sources.find(f"{store.url}/sample", "anybody")


def test_what_an_engine_wrote_and_nobody_understands(store: FileStore, sources: Sources) -> None:
    """It is some pod's, so it is not everybody's."""
    _write(store, annotations={**_crio("mine"), "io.kubernetes.cri-o.ImageName": "a\nb"})
    with pytest.raises(InvalidArgument, match="no checkpoint of namespace mine"):
        sources.find(f"{store.url}/sample", "mine")


def test_a_configuration_that_cannot_be_read(store: FileStore, sources: Sources) -> None:
    write_checkpoint(store, {"config.json": b"no JSON"})
    with pytest.raises(CheckpointCorrupt):
        sources.find(f"{store.url}/sample", "mine")


def test_the_newest_of_a_name_that_it_may_have(store: FileStore, sources: Sources) -> None:
    mine = Pod(uid="u1", namespace="mine", name="web")
    for number, pod in enumerate((mine, mine, Pod(uid="u2", namespace="other", name="web"))):
        _write(
            store,
            f"c{number}",
            pod=pod,
            name="nightly",
            created_at=f"2025-01-0{number + 1}T00:00:00Z",
        )
    assert sources.find("nightly", "mine").manifest.checkpoint_id == "c1"
    with pytest.raises(CheckpointNotFound):
        sources.find("nightly", "third")
    with pytest.raises(CheckpointNotFound):
        sources.find("weekly", "mine")


def test_a_remembered_one_is_read_again(store: FileStore, sources: Sources) -> None:
    mine = Pod(uid="u1", namespace="mine", name="web")
    for number in range(1, 4):
        created = f"2025-01-0{number}T00:00:00Z"
        _write(store, f"c{number}", pod=mine, name="nightly", created_at=created)
    assert sources.find("nightly", "mine").manifest.checkpoint_id == "c3"
    # A directory stays, so that only its manifest tells.
    store.delete(f"c3/{MANIFEST}")
    assert sources.find("nightly", "mine").manifest.checkpoint_id == "c2"
    manifest = read_manifest(store, "c2").model_copy(update={"name": "weekly"})
    replace(store, f"c2/{MANIFEST}", to_bytes(manifest))
    assert sources.find("nightly", "mine").manifest.checkpoint_id == "c1"
    assert sources.find("weekly", "mine").manifest == manifest
    other = manifest.model_copy(update={"pod": Pod(uid="u2", namespace="other", name="web")})
    replace(store, f"c2/{MANIFEST}", to_bytes(other))
    with pytest.raises(CheckpointNotFound):
        sources.find("weekly", "mine")


@pytest.mark.parametrize("depth", [150, 900, 100_000])
def test_a_configuration_that_is_nested_without_end(
    store: FileStore, sources: Sources, depth: int
) -> None:
    config = b'{"root": {}, "annotations": ' + b"[" * depth + b"]" * depth + b"}"
    write_checkpoint(store, {"config.json": config})
    with pytest.raises(CheckpointCorrupt, match=r"nested more than|not JSON"):
        sources.find(f"{store.url}/sample", "mine")


def test_what_cannot_run(store: FileStore, sources: Sources) -> None:
    _write(store, kind="rootfsonly")
    with pytest.raises(InvalidArgument, match="nothing to run"):
        sources.find(f"{store.url}/sample", "mine")
