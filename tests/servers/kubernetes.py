"""A Kubernetes API server for tests: its requests, answers and errors over TLS, and no nodes.

It checks bearer tokens and client certificates, admits pods as the real one does, and keeps them
in memory. What kubelets and schedulers do is for tests to say: `on_pod_created` is called for every
pod that a client makes, in a thread of its own, and the helpers below set what nodes would report.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.servers.certificates import Authority
from tests.servers.kubernetes_http import Fault, Http
from tests.servers.kubernetes_status import Object, Refusal
from tests.servers.kubernetes_store import Store


class KubernetesServer:
    """Ends with the block of `kubernetes_server`.

    Attributes:
        tokens: whoever has one of them is let in.
        requests: verb, resource and path of each, in order.
        denied: verbs and resources that RBAC does not allow.
        pod_quota: how many pods a namespace may have.
        runtime_classes: those that there are.
        admission: webhooks; each may raise Refusal.
        on_pod_created: called with each pod that a client has made.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.tokens = {secrets.token_urlsafe(32)}
        self.requests: list[tuple[str, str, str]] = []
        self.denied: set[tuple[str, str]] = set()
        self.pod_quota: dict[str, int] = {}
        self.runtime_classes = {"checkpoint-runc"}
        self.admission: list[Callable[[Object], None]] = []
        self.on_pod_created: list[Callable[[Object], None]] = []
        self.faults: list[Fault] = []
        self.authority = Authority(folder, "kubernetes-ca")
        self.port = free_port()
        self._folder = folder
        issued = self.authority.issue("kube-apiserver")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(issued.cert, issued.key)
        self._tls.load_verify_locations(self.authority.path)
        self._tls.verify_mode = ssl.CERT_OPTIONAL
        self._http: Http | None = None
        for name in ("default", "kube-system"):
            self.store.add("namespaces", "", {"metadata": {"name": name}})

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """One that is valid."""
        return next(iter(self.tokens))

    @property
    def environment(self) -> dict[str, str]:
        """What every pod's environment says of it."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def start(self) -> None:
        """Listen, also again after `stop`."""
        self._http = Http(self, self._tls)
        # The short poll is how long `stop` takes.
        serving = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        serving.start()

    def stop(self) -> None:
        """Be away; what there is stays."""
        if self._http is not None:
            self._http.end()
            self._http = None

    def service_account(self, name: str = "service-account") -> Path:
        """A directory as kubelet gives one to each pod."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(self.authority.path.read_bytes())
        (folder / "token").write_text(self.token)
        return folder

    def kubeconfig(self, name: str = "kubeconfig", user: Object | None = None) -> Path:
        """A file as kubectl takes it, with its CA in it."""
        ca = base64.b64encode(self.authority.path.read_bytes()).decode()
        cluster = {"server": self.url, "certificate-authority-data": ca}
        file = self._folder / name
        # JSON is YAML too.
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": user or {"token": self.token}}],
                }
            )
        )
        return file

    def fail(self, verb: str, resource: str, refusal: Refusal | None, **how: Any) -> None:  # noqa: ANN401 - Fault's fields
        """Have the next requests of a kind go wrong."""
        self.faults.append(Fault(verb, resource, refusal, **how))

    def count(self, verb: str, resource: str) -> int:
        """How many requests of a kind there were."""
        return sum(each[:2] == (verb, resource) for each in self.requests)

    def pods(self, namespace: str = "") -> list[Object]:
        """All of a namespace, or of all."""
        return self.store.find("pods", namespace)[0]

    def pod(self, namespace: str, name: str) -> Object:
        """Raises Refusal if there is none."""
        return self.store.get("pods", namespace, name)

    def put_pod(self, pod: Object) -> Object:
        """A pod that was there before anybody looked, as it is given."""
        return self.store.add("pods", pod["metadata"]["namespace"], pod)

    def set_status(self, namespace: str, name: str, **status: Any) -> None:  # noqa: ANN401 - as it is
        """What a kubelet or the scheduler reports: ``phase``, ``conditions``, ..."""
        self.store.change(
            "pods", namespace, name, lambda pod: pod.setdefault("status", {}).update(status)
        )

    def set_unschedulable(self, namespace: str, name: str, message: str) -> None:
        """The scheduler finds no node."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        self.set_status(namespace, name, conditions=[condition])

    def set_waiting(self, namespace: str, name: str, reason: str, message: str) -> None:
        """A kubelet cannot start the first container."""
        container = self.pod(namespace, name)["spec"]["containers"][0]["name"]
        waiting = {"reason": reason, "message": message}
        status = {"name": container, "restartCount": 0, "state": {"waiting": waiting}}
        self.set_status(namespace, name, containerStatuses=[status])

    def set_running(self, namespace: str, name: str) -> None:
        """A kubelet has started all containers."""
        names = [each["name"] for each in self.pod(namespace, name)["spec"]["containers"]]
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        statuses = [{"name": each, "restartCount": 0, "state": running} for each in names]
        self.set_status(namespace, name, phase="Running", containerStatuses=statuses)

    def warn(self, pod: Object, reason: str, message: str) -> None:
        """An event of type Warning about a pod."""
        metadata = pod["metadata"]
        self.store.add(
            "events",
            metadata["namespace"],
            {
                "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
                "involvedObject": {"kind": "Pod", "uid": metadata["uid"], "name": metadata["name"]},
                "type": "Warning",
                "reason": reason,
                "message": message,
            },
        )


@contextmanager
def kubernetes_server(folder: Path) -> Iterator[KubernetesServer]:
    """One that listens; its certificates and files are in ``folder``."""
    server = KubernetesServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
