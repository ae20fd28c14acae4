"""`checkpoint-agent daemon` as far as nothing has to run: its settings, shown and refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli_process import only_document, run_cli

NO_FILE = {"CHECKPOINT_AGENT_CONFIG": "/dev/null"}


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_effective_settings_are_shown_without_secrets(output: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[node]\nname = "n1"\n[checkpoint]\nstreams = 2\n')
    done = run_cli(
        *("daemon", "--config", str(config), "--show-config", "-o", output),
        env={
            "CHECKPOINT_AGENT_CHECKPOINT__STREAMS": "8",
            "CHECKPOINT_AGENT_NATS__TOKEN": "hunter2",
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = only_document(done.stdout)
    assert shown["node"] == {"cluster": "default", "name": "n1"}
    assert shown["checkpoint"]["streams"] == 8
    assert shown["nats"]["token"] == "**********"
    assert "hunter2" not in done.stdout


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[checkpoint]\nstream = 2\n")
    done = run_cli("daemon", "--config", str(config), "-o", "json")
    assert done.returncode == 2
    error = only_document(done.stdout)["error"]
    assert error["code"] == "invalid_argument"
    assert error["fields"] == {
        "argument": f"{config}: [checkpoint] stream",
        "reason": "unknown key",
    }


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = run_cli("daemon", "--show-config", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_showing_needs_no_root_and_touches_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run_cli(
        "daemon", "--show-config", env=NO_FILE | {"CHECKPOINT_AGENT_STATE_DIR": str(state)}
    )
    assert json.loads(done.stdout)["state_dir"] == str(state)
    assert not state.exists()


def test_every_setting_is_documented() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    settings = json.loads(run_cli("daemon", "--show-config", env=NO_FILE).stdout)
    in_docs = "".join((root / "docs" / name).read_text() for name in ("daemon.md", "api.md"))
    in_example = (root / "systemd" / "config.toml").read_text()
    for table, keys in settings.items():
        if not isinstance(keys, dict):
            assert f"`{table}`" in in_docs
            continue
        assert f"[{table}]" in in_docs
        assert f"[{table}]" in in_example
        # The two secrets belong into the environment, not into the example of a file.
        for key in keys:
            assert f"`{key}`" in in_docs or f"[{table}.{key}]" in in_docs, key
            secret = (table, key) in {("nats", "password"), ("nats", "token")}
            assert secret or key in in_example, key


def test_the_example_is_what_holds_without_it(tmp_path: Path) -> None:
    """With every comment sign before a value taken away, it still says what the defaults are."""
    example = Path(__file__).resolve().parent.parent.parent / "systemd" / "config.toml"
    lines = []
    for line in example.read_text().splitlines():
        bare = line.removeprefix("# ")
        lines.append(bare if " = " in bare and '"..."' not in bare else line)
    config = tmp_path / "config.toml"
    config.write_text("\n".join(lines))
    written = run_cli("daemon", "--show-config", "--config", str(config))
    default = run_cli("daemon", "--show-config", "--config", os.devnull)
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout) == json.loads(default.stdout)
