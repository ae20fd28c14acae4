"""runc's command line as `checkpoint-runc` reads it: containerd's, CRI-O's, and anybody's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.host.wrapper.arguments import Create, Unknown

CONTAINERD = [
    "--root", "/run/containerd/runc/k8s.io", "--log", "/b/log.json", "--log-format", "json",
    "create", "--bundle", "/b", "--pid-file", "/b/init.pid", "abc",
]  # fmt: skip
CRIO = [
    "--root=/run/runc", "--systemd-cgroup",
    "create", "--bundle", "/u", "--pid-file", "/u/pidfile", "--no-pivot", "abc",
]  # fmt: skip


def test_containerds() -> None:
    create = Create(CONTAINERD)
    assert (create.container, create.bundle) == ("abc", "/b")
    assert (create.root, create.pid_file) == ("/run/containerd/runc/k8s.io", "/b/init.pid")
    assert (create.log, create.logs_json) == ("/b/log.json", True)
    assert create.globals() == ["--root=/run/containerd/runc/k8s.io"]
    assert create.restore(["--image-path", "/i", "--detach"]) == [
        "restore", "--bundle", "/b", "--pid-file=/b/init.pid", "--image-path", "/i", "--detach",
        "abc",
    ]  # fmt: skip


def test_crios() -> None:
    create = Create(CRIO)
    assert create.globals() == ["--root=/run/runc", "--systemd-cgroup"]
    assert create.restore([]) == [
        "restore", "--bundle", "/u", "--pid-file=/u/pidfile", "--no-pivot", "abc",
    ]  # fmt: skip
    assert (create.log, create.logs_json) == (None, False)


def test_what_is_not_given() -> None:
    create = Create(["create", "abc"])
    assert (create.root, create.bundle, create.pid_file) == ("/run/runc", ".", None)
    assert create.unrestorable is None


def test_one_dash_and_the_last_one_counts() -> None:
    create = Create(["-root", "/a", "--root=/b", "create", "-b", "/c", "-bundle=/d", "abc"])
    assert (create.root, create.bundle) == ("/b", "/d")


@pytest.mark.parametrize(
    ("option", "named"),
    [("--preserve-fds=3", "--preserve-fds"), ("--pidfd-socket=/s", "--pidfd-socket")],
)
def test_what_a_restore_cannot_do(option: str, named: str) -> None:
    assert Create(["create", option, "abc"]).unrestorable == named


def test_options_of_a_restore_only() -> None:
    create = Create(["create", "--no-new-keyring", "--console-socket", "/s", "abc"])
    assert create.restore([]) == ["restore", "--bundle", ".", "--console-socket=/s", "abc"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["create"],
        ["create", "a", "b"],
        ["create", "--bundle"],
        ["create", "--from-tomorrow", "abc"],
        ["create", "--help", "abc"],
        ["--from-tomorrow", "create", "abc"],
        ["--root"],
        ["--root", "create"],
        ["start", "abc"],
        ["create", ".."],
        ["create", "../other"],
        ["create", ""],
        ["--", "--root", "create", "abc"],
    ],
)
def test_what_runc_itself_is_to_judge(words: list[str]) -> None:
    with pytest.raises(Unknown):
        Create(words)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*CONTAINERD, *CRIO, "--", "-", "", "--=", "-b", "--root="])))
def test_no_words_do_harm(words: list[str]) -> None:
    try:
        create = Create(words)
    except Unknown:
        return
    assert create.restore([])[-1] == create.container
