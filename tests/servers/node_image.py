"""The container image of the agent, made without an image builder, and brought to a containerd."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from bench.reports import wait_until
from tests.cli_process import ROOT
from tests.servers.containerd import NAMESPACE, ContainerdServer

AGENT_IMAGE = "localhost/checkpoint-agent/agent:test"


def import_agent_image(server: ContainerdServer, bundle: Path, scratch: Path) -> None:
    """Make the image of a bundle (deploy/image-root.sh, as deploy/Dockerfile does) and import it.

    Args:
        scratch: a directory for it, on the bundle's file system; emptied again.
    """
    root, archive = scratch / "root", scratch / "archive"
    subprocess.run([ROOT / "deploy" / "image-root.sh", bundle, root], check=True)
    archive.mkdir()
    subprocess.run(["tar", "-C", root, "-cf", archive / "layer.tar", "."], check=True)
    with (archive / "layer.tar").open("rb") as layer:
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    (archive / "config.json").write_text(json.dumps(config))
    manifest = {"Config": "config.json", "RepoTags": [AGENT_IMAGE], "Layers": ["layer.tar"]}
    (archive / "manifest.json").write_text(json.dumps([manifest]))
    with subprocess.Popen(["tar", "-C", archive, "-c", "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(
            ["ctr", "--address", server.socket, "--namespace", NAMESPACE, "images", "import", "-"],
            stdin=packing.stdout, capture_output=True, check=True,
        )  # fmt: skip
    for directory in (root, archive):
        subprocess.run(["rm", "-rf", directory], check=True)
    asked = {"image": {"image": AGENT_IMAGE}}
    wait_until(lambda: "image" in server.cri.image("ImageStatus", asked), "the agent's image")
