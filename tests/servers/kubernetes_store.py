"""The objects of a cluster with their versions, and who has to be told of changes."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.servers.kubernetes_status import (
    Object,
    already_exists,
    conflict,
    gone,
    not_found,
)

Key = tuple[str, str, str]  # resource, namespace, name

KINDS = {
    "events": "Event",
    "namespaces": "Namespace",
    "nodes": "Node",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
}


class Store:
    """Every change gets the next resourceVersion. ``graceful``: pods take their time to go."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.graceful = False
        self._objects: dict[Key, Object] = {}
        self._log: list[tuple[int, str, Key, Object]] = []
        self._version = 1000
        self._oldest = 0

    def add(self, resource: str, namespace: str, given: Object) -> Object:
        """A new object. Raises Refusal if there is one of that name."""
        with self.changed:
            key = (resource, namespace, given["metadata"]["name"])
            if key in self._objects:
                raise already_exists(resource, key[2])
            made = copy.deepcopy(given)
            made.setdefault("apiVersion", "v1")
            made.setdefault("kind", KINDS.get(resource, "Object"))
            metadata = made["metadata"]
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
            if namespace:
                metadata["namespace"] = namespace
            return self._write("ADDED", key, made)

    def get(self, resource: str, namespace: str, name: str) -> Object:
        """Raises Refusal."""
        with self.changed:
            try:
                return copy.deepcopy(self._objects[resource, namespace, name])
            except KeyError:
                raise not_found(resource, name) from None

    def find(self, resource: str, namespace: str) -> tuple[list[Object], int]:
        """All of a collection, of all namespaces with "", and the version of that."""
        with self.changed:
            found = [
                copy.deepcopy(each)
                for (of, where, _), each in sorted(self._objects.items())
                if of == resource and namespace in ("", where)
            ]
            return found, self._version

    def change(
        self, resource: str, namespace: str, name: str, change: Callable[[Object], None]
    ) -> Object:
        """Raises Refusal."""
        with self.changed:
            changed = self.get(resource, namespace, name)
            change(changed)
            return self._write("MODIFIED", (resource, namespace, name), changed)

    def remove(
        self, resource: str, namespace: str, name: str, uid: str | None = None, *, now: bool = False
    ) -> Object:
        """Delete an object, or begin to. Raises Refusal."""
        with self.changed:
            found = self.get(resource, namespace, name)
            actual = found["metadata"]["uid"]
            if uid is not None and uid != actual:
                why = f"the UID in the precondition ({uid}) does not match ({actual})"
                raise conflict(resource, name, why)
            if self.graceful and resource == "pods" and not now:
                found["metadata"].setdefault("deletionTimestamp", _now())
                return self._write("MODIFIED", (resource, namespace, name), found)
            return self._write("DELETED", (resource, namespace, name), found)

    def compact(self) -> None:
        """Forget what happened before now: watches that begin there are told 410."""
        with self.changed:
            self._oldest = self._version

    def changes(
        self, resource: str, namespace: str, after: int, patience: float
    ) -> Iterator[tuple[str, Object] | None]:
        """What happens; None when nothing did for a while. Raises Refusal."""
        while True:
            with self.changed:
                if after < self._oldest:
                    raise gone(after, self._oldest)
                new = [each for each in self._log if each[0] > after]
                if not new:
                    self.changed.wait(patience)
            if not new:
                yield None
            for version, kind, key, what in new:
                after = version
                if key[0] == resource and namespace in ("", key[1]):
                    yield kind, what

    def _write(self, kind: str, key: Key, what: Object) -> Object:
        self._version += 1
        what["metadata"]["resourceVersion"] = str(self._version)
        if kind == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = what
        self._log.append((self._version, kind, key, copy.deepcopy(what)))
        self.changed.notify_all()
        return copy.deepcopy(what)


def selected(each: Object, labels: str, fields: str) -> bool:
    """Whether an object is what the two selectors, of equalities only, ask for."""
    own = each["metadata"].get("labels", {})
    wanted = [part.partition("=")[::2] for part in labels.split(",") if part]
    asked = [part.partition("=")[::2] for part in fields.split(",") if part]
    return all(own.get(key) == value for key, value in wanted) and all(
        _field(each, key) == value for key, value in asked
    )


def _field(each: Object, path: str) -> str:
    found: Any = each
    for key in path.split("."):
        found = found.get(key, "") if isinstance(found, dict) else ""
    return str(found)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
