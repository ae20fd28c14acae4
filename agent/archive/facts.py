"""What an archive says of its container beside its images: made out of what the checkpoint knows.

checkpointctl, CRI-O and containerd read a dozen fields of config.dump. Podman makes a container of
it, by its own ContainerConfig, so what that cannot do without is there too. What nobody knows is
left out, or has Go's zero time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from agent.manifest import LABEL, Manifest, Member
from agent.pods.annotations import Identity, identify

Json = dict[str, Any]

UNKNOWN_TIME: Final = "0001-01-01T00:00:00Z"
_CRIO_CREATED: Final = "io.kubernetes.cri-o.Created"
_RUNNING: Final = 1  # runtime.v1.ContainerState


@dataclass(frozen=True, slots=True)
class Container:
    """A member as its config.json describes it."""

    member: Member
    config: Json
    identity: Identity | None
    image: str

    def mounts(self) -> list[Json]:
        """Its mounts."""
        found = self.config.get("mounts")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def has_mounted(self, volume: str) -> bool:
        """Whether it has a volume of the pod mounted, as far as its config.json tells."""
        sources = [str(mount.get("source", "")) for mount in self.mounts()]
        return any(volume in source.split("/") for source in sources)


def describe(member: Member, config: bytes, image: str | None) -> Container:
    """A member by its config.json. ``image`` is used instead of what that says, when given.

    Raises:
        ValueError: that is no config.json.
    """
    parsed = parse_object(config)
    identity = identity_of(parsed)
    return Container(member, parsed, identity, image or (identity.image if identity else ""))


def parse_object(data: bytes) -> Json:
    """A JSON object. ValueError when it is none."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError("no JSON object")
    return parsed


def annotations_of(config: Json) -> dict[str, str]:
    """The annotations in a config.json."""
    found = config.get("annotations")
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def identity_of(config: Json) -> Identity | None:
    """Whose container it is, None when it is no container of a pod."""
    found = identify(annotations_of(config), [])
    return found if found and found.container else None


def config_dump(manifest: Manifest, container: Container) -> bytes:
    """The file config.dump."""
    shm = [mount for mount in container.mounts() if mount.get("destination") == "/dev/shm"]  # noqa: S108
    said: Json = {
        "id": container.member.target,
        "name": container.member.name,
        "rootfsImage": container.image,
        "rootfsImageRef": container.image,
        "rootfsImageName": container.image,
        "runtime": "runc",
        "createdTime": annotations_of(container.config).get(_CRIO_CREATED) or UNKNOWN_TIME,
        "checkpointedTime": manifest.created_at,
        "restoredTime": UNKNOWN_TIME,
        "restored": False,
        # From here on for Podman, which finds an image by its name here as well.
        "rootfsImageID": container.image,
        "idMappingsOptions": {"HostUIDMapping": True, "HostGIDMapping": True},
        # It puts a directory of its own there unless told not to: right only for one from outside.
        "NoShm": all(mount.get("type") != "bind" for mount in shm),
        "createNetNS": False,
        "stopSignal": 15,
        "stopTimeout": 10,
    }
    if user := _user(container.config):
        said["user"] = user
    return _json(said)


def status_dump(container: Container) -> bytes | None:
    """The file status.dump, for a container of a pod: the part of its status that is known."""
    if container.identity is None:
        return None
    said: Json = {
        "id": container.member.target,
        "metadata": {"name": container.identity.container},
        "state": _RUNNING,
        "image": {"image": container.image},
        "image_ref": container.image,
        "labels": {},
        "annotations": {},
    }
    return _json(said)


def deleted_files(paths: list[str]) -> bytes:
    """The file deleted.files."""
    return json.dumps(paths).encode()


def member_name(said: Json, identity: Identity | None) -> str:
    """What a member is called that comes from an archive: as in its pod, or as config.dump says.

    Raises:
        ValueError: it has no name that could be used.
    """
    name = identity.container if identity else said.get("name")
    if not isinstance(name, str) or not re.fullmatch(LABEL, name) or name in (".", ".."):
        raise ValueError(f"the container is called {str(name)[:100]!r}")
    return name


def _user(config: Json) -> str:
    """Podman wants to be told who runs it, unless that is root."""
    process = config.get("process")
    user = process.get("user") if isinstance(process, dict) else None
    uid, gid = (user.get(key, 0) for key in ("uid", "gid")) if isinstance(user, dict) else (0, 0)
    return f"{uid}:{gid}" if uid or gid else ""


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
