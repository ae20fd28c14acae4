"""runc's options, as the real library writes them, become CRIU's command line or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pycriu import rpc_pb2

from agent.host.launcher.translate import Options, Untranslatable
from agent.host.launcher.wire import DUMP, RESTORE, number, text

# Every option of a request, with the words it becomes.
TRANSLATED: list[tuple[dict[str, Any], list[str]]] = [
    ({"pid": 4711}, ["--tree", "4711"]),
    ({"leave_running": True}, ["--leave-running"]),
    ({"ext_unix_sk": True}, ["--ext-unix-sk"]),
    ({"tcp_established": True}, ["--tcp-established"]),
    ({"evasive_devices": True}, ["--evasive-devices"]),
    ({"shell_job": True}, ["--shell-job"]),
    ({"file_locks": True}, ["--file-locks"]),
    ({"log_level": 4}, ["--verbosity=4"]),
    ({"log_file": "dump.log"}, ["--log-file", "dump.log"]),
    ({"root": "/bundle/root fs"}, ["--root", "/bundle/root fs"]),
    ({"link_remap": True}, ["--link-remap"]),
    ({"veths": [{"if_in": "eth0", "if_out": "veth1"}]}, ["--external", "veth[eth0]:veth1"]),
    ({"force_irmap": True}, ["--force-irmap"]),
    (
        {"ext_mnt": [{"key": "/proc", "val": "/proc"}, {"key": "/a b", "val": "/c:d"}]},
        ["--external", "mnt[/proc]:/proc", "--external", "mnt[/a b]:/c:d"],
    ),
    ({"manage_cgroups": True}, ["--manage-cgroups=soft"]),
    ({"manage_cgroups": False}, ["--manage-cgroups=ignore"]),
    ({"manage_cgroups": True, "manage_cgroups_mode": 0}, ["--manage-cgroups=ignore"]),
    ({"manage_cgroups_mode": 0}, ["--manage-cgroups=ignore"]),
    ({"manage_cgroups_mode": 1}, ["--manage-cgroups=none"]),
    ({"manage_cgroups_mode": 2}, ["--manage-cgroups=props"]),
    ({"manage_cgroups_mode": 3}, ["--manage-cgroups=soft"]),
    ({"manage_cgroups_mode": 4}, ["--manage-cgroups=full"]),
    ({"manage_cgroups_mode": 5}, ["--manage-cgroups=strict"]),
    ({"manage_cgroups_mode": 6}, ["--manage-cgroups=soft"]),
    (
        {"cg_root": [{"ctrl": "name=systemd", "path": "/a:b"}, {"path": "/unified"}]},
        ["--cgroup-root", "name=systemd:/a:b", "--cgroup-root", "/unified"],
    ),
    ({"rst_sibling": True}, ["--restore-sibling"]),
    (
        {"inherit_fd": [{"key": "pipe:[17]", "fd": 4}, {"key": "extRootNetNS", "fd": 11}]},
        ["--inherit-fd", "fd[4]:pipe:[17]", "--inherit-fd", "fd[11]:extRootNetNS"],
    ),
    ({"ext_sharing": True}, ["--enable-external-sharing"]),
    ({"ext_masters": True}, ["--enable-external-masters"]),
    ({"skip_mnt": ["/a", "/b"]}, ["--skip-mnt", "/a", "--skip-mnt", "/b"]),
    ({"enable_fs": ["nfs"]}, ["--enable-fs", "nfs"]),
    ({"unix_sk_ino": [{"inode": 12}]}, ["--ext-unix-sk=12"]),
    ({"ghost_limit": 1 << 20}, ["--ghost-limit", "1048576"]),
    ({"irmap_scan_paths": ["/x"]}, ["--irmap-scan-path", "/x"]),
    (
        {"external": ["net[4026]:extRootNetNS", "dev[1/3]:null"]},
        ["--external", "net[4026]:extRootNetNS", "--external", "dev[1/3]:null"],
    ),
    ({"empty_ns": 0x40000000}, ["--empty-ns", "net"]),
    ({"empty_ns": 0}, []),
    (
        {
            "join_ns": [
                {"ns": "net", "ns_file": "/proc/7/ns/net"},
                {"ns": "user", "ns_file": "8", "extra_opt": "0,0"},
            ]
        },
        ["--join-ns", "net:/proc/7/ns/net", "--join-ns", "user:8,0,0"],
    ),
    ({"cgroup_props": "p"}, ["--cgroup-props", "p"]),
    ({"cgroup_props_file": "/p"}, ["--cgroup-props-file", "/p"]),
    ({"cgroup_dump_controller": ["cpu"]}, ["--cgroup-dump-controller", "cpu"]),
    (
        {"freeze_cgroup": "/sys/fs/cgroup/freezer/x"},
        ["--freeze-cgroup", "/sys/fs/cgroup/freezer/x"],
    ),
    ({"timeout": 30}, ["--timeout", "30"]),
    ({"tcp_skip_in_flight": True}, ["--skip-in-flight"]),
    ({"weak_sysctls": True}, ["--weak-sysctls"]),
    ({"tcp_close": True}, ["--tcp-close"]),
    ({"lsm_profile": "apparmor:x"}, ["--lsm-profile", "apparmor:x"]),
    ({"cgroup_yard": "/y"}, ["--cgroup-yard", "/y"]),
    ({"lsm_mount_context": "c"}, ["--lsm-mount-context", "c"]),
    ({"network_lock": 1}, ["--network-lock", "iptables"]),
    ({"network_lock": 2}, ["--network-lock", "nftables"]),
    ({"network_lock": 3}, ["--network-lock", "skip"]),
    ({"mntns_compat_mode": True}, ["--mntns-compat-mode"]),
    ({"skip_file_rwx_check": True}, ["--skip-file-rwx-check"]),
    ({"unprivileged": True}, ["--unprivileged"]),
    ({"leave_stopped": True}, ["--leave-stopped"]),
    ({"display_stats": True}, ["--display-stats"]),
    ({"config_file": "/nowhere/runc.conf"}, []),
    # Translated into nothing, because they are off.
    ({"leave_running": False, "tcp_established": False, "rst_sibling": False}, []),
    ({"track_mem": False, "auto_dedup": False, "auto_ext_mnt": False, "lazy_pages": False}, []),
    ({"tls": False, "tls_no_cn_verify": False, "log_to_stderr": False}, []),
]

# Dealt with by the launcher itself, or without a meaning for what is streamed.
ELSEWHERE: dict[str, Any] = {
    "images_dir_fd": 7,
    "work_dir_fd": 8,
    "notify_scripts": True,
    "images_dir": "/images",
    "orphan_pts_master": True,
}

UNTRANSLATABLE: list[tuple[dict[str, Any], str]] = [
    ({"ps": {"address": "::1", "port": 1}}, "ps"),
    ({"parent_img": "../parent"}, "parent_img"),
    ({"track_mem": True}, "track_mem"),
    ({"auto_dedup": True}, "auto_dedup"),
    ({"cpu_cap": 1}, "cpu_cap"),
    ({"exec_cmd": ["true"]}, "exec_cmd"),
    ({"auto_ext_mnt": True}, "auto_ext_mnt"),
    ({"lazy_pages": True}, "lazy_pages"),
    ({"status_fd": 5}, "status_fd"),
    ({"tls_cacert": "/c"}, "tls_cacert"),
    ({"tls_cacrl": "/c"}, "tls_cacrl"),
    ({"tls_cert": "/c"}, "tls_cert"),
    ({"tls_key": "/c"}, "tls_key"),
    ({"tls": True}, "tls"),
    ({"tls_no_cn_verify": True}, "tls_no_cn_verify"),
    ({"pre_dump_mode": 2}, "pre_dump_mode"),
    ({"pidfd_store_sk": 5}, "pidfd_store_sk"),
    ({"log_to_stderr": True}, "log_to_stderr"),
    ({"empty_ns": 0x40000000 | 0x20000}, "empty_ns"),
    # No way to say where one part ends and the next begins.
    ({"cg_root": [{"path": "/a:b"}]}, "cg_root"),
    ({"join_ns": [{"ns": "net", "ns_file": "/a,b"}]}, "join_ns"),
]


def options(**values: Any) -> Options:  # noqa: ANN401 - whatever the message's fields hold
    """A request's options, through the library that runc's own is made like."""
    message = rpc_pb2.criu_opts(**{"images_dir_fd": 7} | values)
    return Options(message.SerializeToString())


@pytest.mark.parametrize(("values", "words"), TRANSLATED, ids=lambda value: str(value)[:60])
def test_translated(values: dict[str, Any], words: list[str]) -> None:
    assert options(**values).arguments(DUMP) == ["dump", *words]
    assert options(**values).arguments(RESTORE) == ["restore", *words, "--restore-detached"]


@pytest.mark.parametrize(("name", "value"), ELSEWHERE.items())
def test_dealt_with_elsewhere(name: str, value: object) -> None:
    assert options(**{name: value}).arguments(DUMP) == ["dump"]


@pytest.mark.parametrize(
    ("values", "name"), UNTRANSLATABLE, ids=[name for _, name in UNTRANSLATABLE]
)
def test_untranslatable(values: dict[str, Any], name: str) -> None:
    for kind in (DUMP, RESTORE):
        with pytest.raises(Untranslatable, match=rf"^{name}\b"):
            options(**values).arguments(kind)


def test_no_option_is_dropped_silently() -> None:
    """Every field that CRIU knows has a fate, and every fate was tried above."""
    known = {field.name for field in rpc_pb2.criu_opts.DESCRIPTOR.fields}
    tried = {name for values, _ in TRANSLATED + UNTRANSLATABLE for name in values}

    assert known == tried | set(ELSEWHERE)


@pytest.mark.parametrize("field", [40, 72, 128, 1000])
def test_fields_that_are_not_invented_yet(field: int) -> None:
    message = rpc_pb2.criu_opts(images_dir_fd=7).SerializeToString() + text(field, b"x")

    with pytest.raises(Untranslatable, match=f"option number {field}"):
        Options(message).arguments(DUMP)


def test_values_of_the_wrong_kind() -> None:
    with pytest.raises(Untranslatable, match="a number where a message should be"):
        Options(number(23, 1)).arguments(DUMP)
    with pytest.raises(Untranslatable, match="manage_cgroups_mode"):
        Options(text(34, b"x")).arguments(DUMP)
    with pytest.raises(Untranslatable, match="manage_cgroups_mode 7"):
        Options(number(34, 7)).arguments(DUMP)
    with pytest.raises(Untranslatable, match="network_lock"):
        Options(number(64, 9)).arguments(DUMP)


def test_a_configuration_file_that_is_there(tmp_path: Path) -> None:
    """Over RPC it would override everything else: that cannot be said in words."""
    path = tmp_path / "runc.conf"
    path.write_text("tcp-established\n")

    with pytest.raises(Untranslatable, match=f"configuration file {path}"):
        options(config_file=str(path)).arguments(DUMP)


def test_the_order_of_a_request_is_kept() -> None:
    words = options(pid=5, leave_running=True, root="/r", external=["b", "a"]).arguments(DUMP)

    assert words[0] == "dump"
    assert words.index("b") < words.index("a")
    assert set(words) == {
        "dump",
        "--tree",
        "5",
        "--leave-running",
        "--root",
        "/r",
        "--external",
        "b",
        "a",
    }


def test_names_that_are_no_unicode_stay_as_they_are() -> None:
    words = Options(text(13, b"/\xff")).arguments(DUMP)

    assert words[2].encode(errors="surrogateescape") == b"/\xff"


def test_directories_are_those_of_the_process_that_asks() -> None:
    both = options(work_dir_fd=9)

    assert both.images_dir(123) == "/proc/123/fd/7"
    assert both.work_dir(123) == "/proc/123/fd/9"
    assert options().work_dir(123) is None
    assert Options(b"").images_dir(123) is None


def test_hooks_are_wanted_or_not() -> None:
    assert options(notify_scripts=True).wants_hooks
    assert not options(notify_scripts=False).wants_hooks
    assert not options().wants_hooks


def test_malformed_options() -> None:
    with pytest.raises(ValueError, match="malformed"):
        Options(b"\x0a\x05x")
    with pytest.raises(ValueError, match="malformed"):
        Options(text(23, b"\x0a\x05x")).arguments(DUMP)
