"""What a request to the API server asks for, and what comes of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.servers.kubernetes_admission import admit
from tests.servers.kubernetes_status import Object, Refusal, forbidden, not_found, rejected
from tests.servers.kubernetes_store import KINDS, selected

if TYPE_CHECKING:
    from tests.servers.kubernetes import KubernetesServer


class Asked:
    """A request for objects of the core group: /api/v1[/namespaces/NS]/RESOURCE[/NAME]."""

    def __init__(self, method: str, path: str, query: dict[str, str], body: Object) -> None:
        parts = [unquote(part) for part in path.split("/")[1:]]
        if parts[:2] != ["api", "v1"]:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        parts = parts[2:]
        self.namespace = ""
        if len(parts) > 2 and parts[0] == "namespaces":
            self.namespace, parts = parts[1], parts[2:]
        self.resource, self.name = parts[0], parts[1] if len(parts) > 1 else ""
        self.query, self.body = query, body
        reading = "watch" if query.get("watch") == "true" else "get" if self.name else "list"
        verbs = {"GET": reading, "POST": "create", "DELETE": "delete"}
        self.verb = verbs[method]
        if self.resource not in KINDS:
            raise not_found(self.resource, self.name)

    def selects(self, each: Object) -> bool:
        """Whether it is one of those that are asked for."""
        labels, fields = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")
        return selected(each, labels, fields)

    def carry_out(self, cluster: KubernetesServer) -> tuple[int, Object]:
        """Status and answer. Raises Refusal."""
        where = (self.resource, self.namespace)
        if (self.verb, self.resource) in cluster.denied:
            raise forbidden(self.verb, self.resource, self.namespace)
        store = cluster.store
        if self.verb == "create":
            return 201, self._create(cluster)
        if self.verb == "get":
            return 200, store.get(*where, self.name)
        if self.verb == "delete":
            uid = self.body.get("preconditions", {}).get("uid")
            return 200, store.remove(*where, self.name, uid)
        found, version = store.find(*where)
        kept = [each for each in found if self.selects(each)]
        return 200, {
            "kind": f"{KINDS[self.resource]}List",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(version)},
            "items": kept[: int(self.query.get("limit") or len(kept))],
        }

    def _create(self, cluster: KubernetesServer) -> Object:
        made = self.body
        metadata = made.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            text = "resourceVersion should not be set on objects to be created"
            raise Refusal(500, "", text)
        if metadata.get("namespace", self.namespace) != self.namespace:
            text = "the namespace of the provided object does not match the namespace sent"
            raise Refusal(400, "BadRequest", text)
        if self.namespace:
            cluster.store.get("namespaces", "", self.namespace)
        if self.resource != "pods":
            return cluster.store.add(self.resource, self.namespace, made)
        admit(made, cluster.runtime_classes)
        for webhook in cluster.admission:
            webhook(made)
        most, there = cluster.pod_quota.get(self.namespace), len(cluster.pods(self.namespace))
        if most is not None and there >= most:
            used = f"requested: pods=1, used: pods={there}, limited: pods={most}"
            raise rejected("pods", metadata["name"], f"exceeded quota: pods, {used}")
        stored = cluster.store.add("pods", self.namespace, made)
        for hook in cluster.on_pod_created:
            threading.Thread(target=hook, args=(stored,), daemon=True).start()
        return stored
