"""runc's command lines, ids and complaints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.config import Tools
from agent.errors import BundleInvalid, TargetNotFound
from agent.host import runc
from agent.manifest import Options
from agent.targets import RuncTarget


@pytest.mark.parametrize("container", ["web", "a.b", "a_b-c+d", "0", "-", "x" * 1024, "..a"])
def test_ids_that_runc_takes(container: str) -> None:
    assert runc.is_valid_id(container)


@pytest.mark.parametrize("container", ["", ".", "..", "a/b", "a b", "a\n", "\0", "x" * 1025])
def test_ids_that_are_none(container: str) -> None:
    assert not runc.is_valid_id(container)


def test_what_exists(tmp_path: Path) -> None:
    (tmp_path / "root" / "web").mkdir(parents=True)

    assert runc.exists(RuncTarget("web", tmp_path / "root"))
    assert not runc.exists(RuncTarget("other", tmp_path / "root"))
    assert not runc.exists(RuncTarget("..", tmp_path / "root"))
    assert not runc.exists(RuncTarget("../root", tmp_path / "root"))


@pytest.mark.parametrize("depth", [101, 990, 100_000])
@pytest.mark.parametrize("inner", ['{"a":', "["])
def test_a_configuration_that_is_nested_without_end(tmp_path: Path, depth: int, inner: str) -> None:
    ends = {"[": "]", '{"a":': "}"}
    deep = f"{inner * depth}1{ends[inner] * depth}"
    (tmp_path / "config.json").write_text(f'{{"root": {{}}, "linux": {deep}}}')
    with pytest.raises(BundleInvalid):
        runc.read_config(tmp_path)


def test_a_configuration_as_deep_as_one_may_be(tmp_path: Path) -> None:
    # The outermost object is a level, too.
    (tmp_path / "config.json").write_text(f'{{"root": {{}}, "x": {"[" * 99}1{"]" * 99}}}')
    # It can be written again, wherever that is done.
    assert json.dumps(runc.read_config(tmp_path)).count("[") == 99


def test_a_state_that_is_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/state.json").write_text("[" * 100_000)
    with pytest.raises(TargetNotFound):
        runc.load(RuncTarget("web", tmp_path))


def test_command_lines() -> None:
    tools = Tools(Path("/criu"), Path("/runc"))
    options = Options(tcp_established=True, file_locks=True, manage_cgroups_mode="full")

    assert runc.command(tools, Path("/r"), log=Path("/l")) == [
        "/runc",
        "--root",
        "/r",
        "--log",
        "/l",
    ]
    assert runc.checkpoint_arguments(options, leave_running=True) == [
        *("--manage-cgroups-mode", "full", "--tcp-established", "--file-locks", "--leave-running")
    ]
    assert runc.checkpoint_arguments(Options(), leave_running=False) == [
        *("--manage-cgroups-mode", "soft")
    ]
    assert runc.restore_arguments(Options(ext_unix_sk=True, shell_job=True)) == [
        *("--manage-cgroups-mode", "soft", "--ext-unix-sk", "--shell-job", "--detach")
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"linux": {"cgroupsPath": "system.slice:runc:web"}}, ["--systemd-cgroup"]),
        ({"linux": {"cgroupsPath": ":cri-containerd:web"}}, ["--systemd-cgroup"]),
        ({"linux": {"cgroupsPath": "/kubepods/web"}}, []),
        ({"linux": {"cgroupsPath": 5}}, []),
        ({"linux": {}}, []),
        ({}, []),
    ],
)
def test_who_makes_the_cgroup(config: dict[str, object], words: list[str]) -> None:
    assert runc.cgroup_arguments(config) == words


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ("", ""),
        ('time="t" level=info msg="fine"\n', ""),
        ('time="t" level=error msg="first"\ntime="t" level=error msg="last"\n', "last"),
        ('time="t" level=fatal msg="it \\"is\\" bad"\n', 'it "is" bad'),
        ("level=error without a message", "level=error without a message"),
        ('level=error msg="first"\nlevel=warning msg="later"\n', "first"),
    ],
)
def test_complaints(tmp_path: Path, log: str, complaint: str) -> None:
    (tmp_path / "log").write_text(log)

    assert runc.complaint(tmp_path / "log") == complaint


def test_no_log_no_complaint(tmp_path: Path) -> None:
    assert runc.complaint(tmp_path / "log") == ""
