"""The second disk of the machine: this checkout, and the Python packages that it installs.

The machine has no network, so everything that `pip` would fetch there is fetched here, with the
host's own configuration of pip, and none of that configuration goes in.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".tools" / "system"

# What the machine's Debian has (deploy/system-image.sh), and all that its wheels may ask for.
PYTHON = "3.13"
PLATFORMS = [
    "any",
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(5, 42)),
]

# Of the locked development packages, those that tests inside the machine stand on.
TEST_PACKAGES = frozenset(
    {"grpcio-tools", "hypothesis", "iniconfig", "packaging", "pluggy", "protobuf", "pygments",
     "pytest", "pytest-asyncio", "pytest-timeout", "setuptools", "sortedcontainers"}
)  # fmt: skip


def locked(name: str) -> list[str]:
    """The packages of a lock file in deploy/."""
    text = (ROOT / "deploy" / name).read_text()
    return re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)


def build_payload(directory: Path) -> Path:
    """Write the disk's image into ``directory``.

    Raises:
        subprocess.CalledProcessError: git, pip or mke2fs failed, and has said why.
    """
    content = directory / "payload"
    (content / "source").mkdir(parents=True)
    _copy_source(content / "source")
    (content / "requirements-test.txt").write_text(_test_requirements())
    shutil.copytree(_wheels(content / "requirements-test.txt"), content / "wheels")
    shutil.copy(ROOT / ".tools" / "cri-api" / "api.proto", content)
    image = directory / "payload.img"
    mebibytes = sum(path.stat().st_size for path in content.rglob("*") if path.is_file()) >> 20
    # A fifth and some more for the file system's own.
    size = f"{mebibytes * 6 // 5 + 64}M"
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", content, image, size],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shutil.rmtree(content)
    return image


def _copy_source(target: Path) -> None:
    """What `git add --all` would take: the working tree as it is, without what is built in it."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        # One that is deleted but not yet committed is listed all the same.
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def _test_requirements() -> str:
    """The locked lines of TEST_PACKAGES, with their digests."""
    kept, lines = False, []
    for line in (ROOT / "deploy" / "requirements-dev.lock").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==", line):
            kept = found[1] in TEST_PACKAGES
        if kept:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _wheels(test_requirements: Path) -> Path:
    """A directory of all packages for the machine's Python; fetched when the locks have changed."""
    lock = ROOT / "deploy" / "requirements.lock"
    text = lock.read_bytes() + test_requirements.read_bytes() + PYTHON.encode()
    wheels = CACHE / f"wheels-{hashlib.sha256(text).hexdigest()[:16]}"
    if wheels.exists():
        return wheels
    for old in CACHE.glob("wheels-*"):
        shutil.rmtree(old)
    fetched = CACHE / f"new-{wheels.name}"
    shutil.rmtree(fetched, ignore_errors=True)
    for requirements in (lock, test_requirements):
        _download(requirements, fetched)
    return fetched.rename(wheels)


def _download(requirements: Path, target: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check",
         "--no-deps", "--prefer-binary", "--require-hashes", "--requirement", requirements,
         "--dest", target, "--python-version", PYTHON, "--implementation", "cp",
         "--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none", *platforms],
        check=True,
    )  # fmt: skip
