"""The agent's DaemonSet on one node: its manifest, done on a real containerd as kubelet does it.

What is rendered from deploy/kubernetes is what runs, but for names of places: a test's node has its
own instead of /opt/checkpoint-agent, /var/lib/kubelet and so on.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from bench.reports import wait_until
from tests.cli_process import ROOT
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_api import Json
from tests.servers.cri_pods import new_uid, sandbox_config
from tests.servers.node_image import AGENT_IMAGE

KUBECTL = ROOT / ".tools" / "kubectl" / "bin" / "kubectl"

# hostPID, and everything else of the pod's own.
_NAMESPACES = {"network": "POD", "pid": "NODE", "ipc": "POD"}
_FIRST_PROCESS = 1


def render(directory: str) -> list[Json]:
    """The objects of a kustomization below deploy/kubernetes."""
    done = subprocess.run(
        [KUBECTL, "kustomize", ROOT / "deploy" / "kubernetes" / directory],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(objects: list[Json], kind: str, name: str) -> Json:
    """The one object of a kind and a name; a digest may follow the name."""
    [found] = [
        each
        for each in objects
        if each["kind"] == kind
        and (each["metadata"]["name"] == name or each["metadata"]["name"].startswith(f"{name}-"))
    ]
    return found


@dataclass
class AgentPod:
    """A pod of the DaemonSet on the node that ``server`` is.

    Attributes:
        prefix: instead of /opt/checkpoint-agent.
        directory: state, store and sockets are below it.
    """

    server: ContainerdServer
    prefix: Path
    directory: Path
    uid: str = field(default_factory=new_uid)
    sandbox_id: str = ""
    containers: dict[str, str] = field(default_factory=dict)
    _config: Json = field(default_factory=dict)
    _spec: Json = field(default_factory=dict)
    _attempt: dict[str, int] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where the daemon serves gRPC."""
        return self.directory / "agent.sock"

    def start(self) -> None:
        """The pod with its init containers, and then the others; the daemon serves afterwards."""
        objects = self._at_home(render("base"))
        spec = self._spec = named(objects, "DaemonSet", "agent")["spec"]["template"]["spec"]
        self._put_volumes(spec, named(objects, "ConfigMap", "agent")["data"]["config.toml"])
        self._config = sandbox_config("agent", "checkpoint-agent", self.uid, self.server.name)
        self._config["dns_config"] = {"servers": ["10.96.0.10"], "searches": ["svc.test"]}
        self._config["log_directory"] = str(self.directory / "logs")
        context = self._config["linux"]["security_context"]
        assert spec["hostPID"]
        context.update({"namespace_options": _NAMESPACES, "privileged": True})
        made = self.server.cri.runtime("RunPodSandbox", {"config": self._config})
        self.sandbox_id = str(made["pod_sandbox_id"])
        for container in spec["initContainers"]:
            self._start(container)
            assert self.wait(container["name"]) == 0, self.log(container["name"])
        self.start_again()

    def start_again(self) -> None:
        """Its containers, that have ended, once more."""
        for container in self._spec["containers"]:
            self._start(container)
        self.wait_serving()

    def wait_serving(self) -> None:
        """Wait until the daemon serves."""

        def serving() -> bool:
            assert self.status("agent")["state"] == "CONTAINER_RUNNING", self.log("agent")
            return '"event": "ready"' in self.log("agent")

        wait_until(serving, "the agent being ready")

    def log(self, container: str) -> str:
        """What a container has said since it was started the last time."""
        name = f"{container}-{self._attempt[container]}.log"
        lines = (self.directory / "logs" / name).read_text().splitlines()
        # Time, stream, and whether the line goes on, before each.
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def status(self, container: str) -> Json:
        """What the runtime says of a container."""
        asked = {"container_id": self.containers[container]}
        status: Json = self.server.cri.runtime("ContainerStatus", asked)["status"]
        return status

    def wait(self, container: str) -> int:
        """Wait for a container's end and return its exit code."""

        def ended() -> bool:
            return bool(self.status(container)["state"] == "CONTAINER_EXITED")

        wait_until(ended, f"the end of {container}")
        return int(self.status(container).get("exit_code", 0))

    @property
    def node_pid(self) -> int:
        """A process with the node's namespaces. The test machine's first may be out of reach."""
        try:
            os.readlink(f"/proc/{_FIRST_PROCESS}/ns/mnt")
        except PermissionError:
            return self.server.pid
        return _FIRST_PROCESS

    def stop(self, seconds: int = 60) -> int:
        """Stop the daemon as kubelet does, and return its exit code."""
        asked = {"container_id": self.containers["agent"], "timeout": seconds}
        self.server.cri.runtime("StopContainer", asked)
        return self.wait("agent")

    def daemon(self) -> int:
        """The daemon's own process."""
        words = [f"{self._here()}/libexec", "-m", "agent", "daemon"]
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line[-4:-1] == words[1:] and any(word.startswith(words[0]) for word in line):
                return int(entry.parent.name)
        raise AssertionError("the daemon does not run")

    def _here(self) -> Path:
        return (self.prefix / "current").resolve()

    def _at_home(self, objects: list[Json]) -> list[Json]:
        """The objects with this node's places in them."""
        text = json.dumps(objects)
        places = {
            "/opt/checkpoint-agent": self.prefix,
            "/var/lib/kubelet": self.server.kubelet_dir,
            "/var/lib/checkpoint-agent/": f"{self.directory}/state/",
            '"/var/lib/checkpoint-agent"': f'"{self.directory}/state"',
        }
        for usual, place in places.items():
            assert usual in text
            text = text.replace(usual, str(place))
        moved: list[Json] = json.loads(text)
        return moved

    def _put_volumes(self, spec: Json, config: str) -> None:
        """Write what kubelet would, where it would."""
        tables = tomllib.loads(config)
        # This node's places; and no broker and no API server, which its network has no way to.
        tables["rpc"] = {"socket": str(self.socket)}
        tables["restore"] = {"socket": str(self.directory / "restore.sock")}
        tables["drain"] = {"file": str(self.directory / "drain")}
        tables["pods"] = {"runc_roots": [str(self.server.runc_root)]}
        tables["nats"]["url"] = ""
        tables["cluster"]["in_cluster"] = False
        files: dict[str, dict[str, str]] = {
            "config": {"config.toml": _toml(tables)},
            "nats": {"agent-password": "secret"},
            "service-account": {"token": "token", "ca.crt": ""},
        }
        for volume in spec["volumes"]:
            place = self._volume(volume)
            place.mkdir(parents=True, exist_ok=True)
            for name, text in files.get(volume["name"], {}).items():
                (place / name).write_text(text)

    def _volume(self, volume: Json) -> Path:
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        [kind] = {"configMap", "secret", "projected", "emptyDir"} & set(volume)
        folder = f"kubernetes.io~{kind.lower()}"
        name = str(volume["name"])
        return self.server.kubelet_dir / "pods" / self.uid / "volumes" / folder / name

    def _start(self, container: Json) -> None:
        volumes = {volume["name"]: self._volume(volume) for volume in self._spec["volumes"]}
        context = container["securityContext"]
        attempt = self._attempt[container["name"]] = self._attempt.get(container["name"], 0) + 1
        config = {
            "metadata": {"name": container["name"], "attempt": attempt},
            "image": {"image": AGENT_IMAGE},
            "command": container["command"],
            "envs": [{"key": key, "value": text} for key, text in self._env(container).items()],
            "mounts": [
                {
                    "container_path": mount["mountPath"],
                    "host_path": str(volumes[mount["name"]]),
                    "readonly": mount.get("readOnly", False),
                }
                for mount in container["volumeMounts"]
            ],
            "labels": {
                **self._config["labels"], "io.kubernetes.container.name": container["name"]
            },
            "log_path": f"{container['name']}-{attempt}.log",
            "linux": {
                "resources": {},
                "security_context": {
                    "namespace_options": _NAMESPACES,
                    "privileged": context["privileged"],
                    "readonly_rootfs": context["readOnlyRootFilesystem"],
                    "run_as_user": {"value": context["runAsUser"]},
                },
            },
        }  # fmt: skip
        asked = {
            "pod_sandbox_id": self.sandbox_id, "config": config, "sandbox_config": self._config,
        }  # fmt: skip
        made = str(self.server.cri.runtime("CreateContainer", asked)["container_id"])
        self.containers[container["name"]] = made
        self.server.cri.runtime("StartContainer", {"container_id": made})

    def _env(self, container: Json) -> Mapping[str, str]:
        fields = {"metadata.uid": self.uid, "spec.nodeName": "node-1"}
        found: dict[str, str] = {}
        for each in container.get("env", []):
            if "valueFrom" in each:
                found[each["name"]] = fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
                continue
            text = each["value"]
            for name, value in found.items():
                text = text.replace(f"$({name})", value)
            found[each["name"]] = text
        found |= {
            "PREFIX": str(self.prefix),
            "RESTORE_SOCKET": str(self.directory / "restore.sock"),
            "CONTAINERD_CONFIG": str(self.server.directory / "config.toml"),
            "NODE_PID": str(self.node_pid),
        }
        return found


def _toml(tables: dict[str, Any]) -> str:
    outside = [f"{key} = {json.dumps(value)}" for key, value in tables.items()
               if not isinstance(value, dict)]  # fmt: skip
    inside = [
        line
        for name, table in tables.items()
        if isinstance(table, dict)
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    ]
    return "\n".join([*outside, *inside])
