"""Which bundle a container is restored from."""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import BundleInvalid
from agent.host import runc


def find_bundle(given: Path | None, recorded: str | None, saved: bytes | None, home: Path) -> Path:
    """The bundle given, else the one it had, else one made from the saved config.json.

    Args:
        recorded: the bundle's path at the checkpoint.
        saved: the config.json at the checkpoint.
        home: where to make a bundle; runc refers to it as long as the container lives.

    Raises:
        BundleInvalid: there is none with a root filesystem.
    """
    if given is not None:
        return _checked(given)
    if recorded and (Path(recorded) / "config.json").exists():
        return _checked(Path(recorded))
    if recorded is None:
        # An archive may say that its root filesystem is this machine's.
        raise BundleInvalid("", "none is recorded, as the checkpoint was imported")
    if saved is None:
        raise BundleInvalid(recorded, "it is gone, and the checkpoint carries no copy")
    return _rebuild(saved, Path(recorded), home)


def root_of(bundle: Path) -> Path:
    """A bundle's root filesystem. Raises BundleInvalid."""
    return _root_path(runc.read_config(bundle), bundle)


def _checked(bundle: Path) -> Path:
    config = runc.read_config(bundle)
    root = _root_path(config, bundle)
    if not root.is_dir():
        raise BundleInvalid(str(bundle), f"its root filesystem {root} is not there")
    return bundle.absolute()


def _root_path(config: dict[str, object], bundle: Path) -> Path:
    return bundle / str(_root(config).get("path"))


def _root(config: dict[str, object]) -> dict[str, object]:
    root = config["root"]
    return root if isinstance(root, dict) else {}


def _rebuild(saved: bytes, recorded: Path, home: Path) -> Path:
    """Write the saved configuration, its root filesystem where it was."""
    config = runc.parse_config(saved, recorded)
    path = _root_path(config, recorded)
    if not path.is_dir():
        raise BundleInvalid(str(recorded), f"its root filesystem {path} is not there")
    config["root"] = {**_root(config), "path": str(path)}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(config))
    return home
