"""Archives between the agent and other tools: checkpointctl looks in, Podman restores and makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.archive.take import ImportRequest, import_archive
from agent.archive.write import ArchiveRequest, export_archives
from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.chunks import read_manifest
from agent.restore import RestoreRequest, restore
from agent.store.file import FileStore
from agent.targets import Kind, Volume
from agent.verify import verify
from bench.bundle import COUNTER
from bench.reports import Counter, Report
from bench.runc import Container
from tests.archives import content
from tests.cli_process import only_document, run_cli, start_cli
from tests.integration.lab import Lab, target_of
from tests.integration.moments import image_of
from tests.servers.podman import Podman, podman_in, podman_program
from tests.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.criu]

IMAGE = "localhost/counter:1"
_CRI = "io.kubernetes.cri."
NOTED = {
    f"{_CRI}container-type": "container",
    f"{_CRI}container-name": "app",
    f"{_CRI}image-name": IMAGE,
    f"{_CRI}sandbox-id": "sandbox",
    f"{_CRI}sandbox-uid": "0b7a3f7e-1111-4222-8333-444455556666",
    f"{_CRI}sandbox-namespace": "default",
    f"{_CRI}sandbox-name": "web",
}
CHECKPOINTCTL = shutil.which(
    Path(__file__).parents[2] / ".tools" / "checkpointctl" / "bin" / "checkpointctl"
) or shutil.which("checkpointctl")


@dataclass(frozen=True, slots=True)
class Archived:
    """A container with a layer of its own, and the archive of it."""

    container: Container
    lower: Path
    checkpoint_id: str
    archive: Path
    count: int


@pytest.fixture
def podman(lab: Lab) -> Iterator[Podman]:
    program = podman_program()
    if program is None:
        pytest.skip("no Podman here (make setup-test)")
    # Sockets below it have 107 bytes.
    place = tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True)
    with place as home, podman_in(Path(home), program, lab.tools.criu) as made:
        yield made


def overlaid(lab: Lab) -> tuple[Container, Path]:
    """A counter in a pod, on an overlay, that has changed files; and what is below the overlay.

    As a pod's, its /dev/shm is a directory from outside.
    """
    bundle = lab.runc.build(COUNTER, annotations=NOTED)
    lower, upper, work = (bundle.path / name for name in ("lower", "upper", "work"))
    rootfs = bundle.path / "rootfs"
    rootfs.rename(lower)
    for folder in (rootfs, upper, work, lower / "etc", bundle.path / "shm"):
        folder.mkdir()
    config = json.loads((bundle.path / "config.json").read_text())
    [shm] = [mount for mount in config["mounts"] if mount["destination"] == "/dev/shm"]
    shm |= {"type": "bind", "source": str(bundle.path / "shm"), "options": ["bind"]}
    (bundle.path / "config.json").write_text(json.dumps(config))
    (bundle.path / "shm" / "queue").write_text("queued")
    for name in ("gone", "kept"):
        (lower / "etc" / name).write_text(f"{name}, says the image")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "none", rootfs, "-o", options], check=True)
    container = lab.runc.start(bundle)
    (rootfs / "etc" / "gone").unlink()
    (rootfs / "etc" / "new").write_text("new, says the container")
    return container, lower


async def archived(lab: Lab, name: str = "counter.tar.zst", *, stop: bool = False) -> Archived:
    container, lower = overlaid(lab)
    member = MemberRequest(target_of(container), "app")
    shm = Volume("shm", container.bundle.path / "shm", "shm")
    request = CheckpointRequest(
        members=(member,), store=lab.store, kind=Kind.ROOTFS, stop=stop, volumes=(shm,)
    )
    done = await checkpoint(request, tools=lab.tools, state_dir=lab.state_dir)
    target = lab.directory / name
    await export_archives(ArchiveRequest(lab.store, done.checkpoint_id, target))
    count = container.report("counter").read(Counter.TICKS)
    return Archived(container, lower, done.checkpoint_id, target, count)


def checkpointctl(*words: object) -> str:
    if CHECKPOINTCTL is None:
        pytest.skip("no checkpointctl here (make setup-test)")
    command = [CHECKPOINTCTL, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["counter.tar", "counter.tar.gz", "counter.tar.zst"])
async def test_checkpointctl_shows_it(lab: Lab, name: str) -> None:
    made = await archived(lab, name)

    shown = checkpointctl("show", made.archive)
    assert all(word in shown for word in ("app", IMAGE, "runc", "containerd", "ROOT FS DIFF SIZE"))
    said: Any = json.loads(checkpointctl("inspect", "--all", "--format", "json", made.archive))
    [found] = said
    assert (found["image"], found["id"]) == (IMAGE, made.container.id)
    assert found["process_tree"] | {"cmdline": ""} == {
        "pid": 1,
        "command": "counter",
        "cmdline": "",
    }
    assert found["statistics"]["pages_written"] > 0
    assert "/proc" in {mount["destination"] for mount in found["mounts"]}


async def test_podman_goes_on_with_it(lab: Lab, podman: Podman) -> None:
    made = await archived(lab)
    made.container.delete()
    podman.make_image(IMAGE, made.lower)

    podman("container", "restore", "--import", made.archive, "--name", "again")

    assert podman("inspect", "--format", "{{.State.Restored}}", "again") == "true"
    root = podman.mounted("again")
    Report(root / "state" / "counter").wait_beyond(Counter.TICKS, made.count)
    assert not (root / "etc" / "gone").exists()
    assert (root / "etc" / "new").read_text() == "new, says the container"
    assert (root / "etc" / "kept").read_text() == "kept, says the image"
    assert podman("exec", "again", "/bin/cat", "/etc/new") == "new, says the container"
    assert podman("exec", "again", "/bin/cat", "/dev/shm/queue") == "queued"


async def test_we_go_on_with_podmans(lab: Lab, podman: Podman) -> None:
    """The bundle is made of what the archive has, as an engine would, with files for its mounts."""
    bundle = lab.runc.build(COUNTER)
    podman.make_image(IMAGE, bundle.path / "rootfs")
    words = ("run", "--detach", "--network", "none", "--name", "theirs", IMAGE)
    podman(*words, *COUNTER.command())
    Report(podman.mounted("theirs") / "state" / "counter").wait_ready()
    archive = lab.directory / "theirs.tar.gz"
    podman("container", "checkpoint", "--compress", "gzip", "--export", archive, "theirs")

    store = FileStore(lab.directory / "imported")
    result = await import_archive(ImportRequest(str(archive), store), state_dir=lab.state_dir)

    assert result.containers == ["theirs"]
    await verify(store, result.checkpoint_id)
    there = lab.with_store(store)
    files = content(archive)
    for name in ("pages-1.img", "core-1.img", "inventory.img", "descriptors.json"):
        assert image_of(there, result.checkpoint_id, name) == files[f"checkpoint/{name}"]
    unpack_layer(there, result.checkpoint_id, bundle.path / "rootfs")
    config = json.loads(image_of(there, result.checkpoint_id, "config.json"))
    adapt(config, bundle.path, json.loads((bundle.path / "config.json").read_text()))
    request = RestoreRequest(store, result.checkpoint_id, "ours", bundle.path, lab.runc.path)
    await restore(request, tools=lab.tools, state_dir=lab.state_dir)
    report = bundle.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS))


async def test_out_in_and_alive_again(lab: Lab) -> None:
    made = await archived(lab, stop=True)
    store = str(lab.directory / "imported")
    state = ("--state-dir", str(lab.state_dir))

    done = run_cli("import", str(made.archive), "--store", store, *state, "-o", "json")

    assert done.returncode == 0, done.stderr
    path = only_document(done.stdout)["path"]
    checked = run_cli("verify", path, "-o", "json")
    assert checked.returncode == 0, checked.stderr
    manifest = read_manifest(FileStore(Path(store)), path.rpartition("/")[2])
    assert (manifest.kind, manifest.members[0].name) == ("rootfs", "app")
    assert [volume.name for volume in manifest.volumes] == ["shm"]
    assert manifest.pod is not None
    assert manifest.pod.uid == NOTED[f"{_CRI}sandbox-uid"]
    before = read_manifest(lab.store, made.checkpoint_id).members[0]
    there = lab.with_store(FileStore(Path(store)))
    for image in before.images:
        if image.kind != "rootfs":
            old = image_of(lab, made.checkpoint_id, image.name)
            assert image_of(there, manifest.checkpoint_id, image.name) == old, image.name
    target = lab.directory / "again.tar"
    out = run_cli("export", path, str(target), "--format", "oci")
    assert (out.returncode, str(target) in out.stdout) == (0, True), out.stderr
    assert content(target)["spec.dump"] == image_of(lab, made.checkpoint_id, "config.json")
    nowhere = run_cli("restore", path, *state, "-o", "json")
    assert only_document(nowhere.stdout)["error"]["code"] == "bundle_invalid"
    words = ("--runc-root", str(lab.runc.path), "--bundle", str(made.container.bundle.path))
    restored = run_cli("restore", path, *words, *state, "-o", "json")
    assert restored.returncode == 0, restored.stderr
    made.container.report("counter").wait_beyond(Counter.TICKS, made.count)
    assert made.container.status() == "running"


def test_the_command_line_refuses_what_makes_no_sense(lab: Lab) -> None:
    store, target = str(lab.directory / "store"), str(lab.directory / "c.tar")
    wrong = run_cli("export", f"{store}/x", target, "--member", "app", "-o", "json")
    assert (wrong.returncode, only_document(wrong.stdout)["error"]["code"]) == (
        2, "invalid_argument",
    )  # fmt: skip
    none = run_cli("export", f"{store}/x", target, "--format", "oci")
    assert none.returncode == 10
    (lab.directory / "bad.tar").write_bytes(b"hello" * 500)
    state = ("--state-dir", str(lab.state_dir))
    bad = run_cli("import", str(lab.directory / "bad.tar"), "--store", store, *state)
    assert (bad.returncode, "no tar" in bad.stderr) == (11, True)
    assert lab.stored() == []


def unpack_layer(lab: Lab, checkpoint_id: str, root: Path) -> None:
    layer = image_of(lab, checkpoint_id, "rootfs-diff.tar")
    subprocess.run(["tar", "-x", "-p", "-C", root], input=layer, check=True)


def adapt(config: dict[str, Any], bundle: Path, ours: dict[str, Any]) -> None:
    """Write another engine's configuration into a bundle, as one for this place."""
    for mount in config["mounts"]:
        if mount["type"] == "bind":
            source = bundle / mount["destination"].strip("/").replace("/", "-")
            source.mkdir() if mount["destination"] == "/dev/shm" else source.write_text("")
            mount["source"] = str(source)
    config["root"] = {"path": "rootfs"}
    config["linux"]["cgroupsPath"] = ours["linux"]["cgroupsPath"]
    (bundle / "config.json").write_text(json.dumps(config))


def test_the_archive_is_waited_for(lab: Lab) -> None:
    """Nothing is left when nobody writes any more, and the reader is told to end."""
    pipe = lab.directory / "pipe"
    subprocess.run(["mkfifo", pipe], check=True)
    words = ("import", str(pipe), "--store", str(lab.directory / "store"))
    with (
        pipe.open("r+b", buffering=0),
        start_cli(*words, "--state-dir", str(lab.state_dir)) as process,
    ):
        eventually(lambda: bool(lab.operations()), "the import to begin")
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "nothing was stored" in said) == (128 + 15, True)
    assert (lab.stored(), lab.operations()) == ([], [])
