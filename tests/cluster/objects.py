"""The objects of a Kubernetes API: versions, events, owners and finalizers."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
FOREGROUND = "foregroundDeletion"
# Kinds whose specification has no generations.
_UNCOUNTED = (
    *("namespaces", "secrets", "configmaps", "services", "serviceaccounts", "events"),
    *("resourcequotas", "limitranges"),
)


@dataclass(frozen=True)
class Kind:
    """One resource that the API serves."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Failure(Exception):
    """An answer other than success: status, reason and message of the API."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def to_dict(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
        }


@dataclass(frozen=True)
class Event:
    """One change: ADDED, MODIFIED or DELETED, and the object afterwards."""

    version: int
    type: str
    kind: Kind
    object: Object


def now() -> str:
    """Returns the time as Kubernetes spells it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects; thread-safe; `changed` is notified at every event."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 1
        self.oldest = 1
        """Watches from before this version get 410 Gone."""
        self.events: list[Event] = []
        self._all: dict[tuple[str, str, str], Object] = {}
        self._kinds: dict[str, Kind] = {}
        self.lingering: Callable[[Kind, Object], bool] = lambda *_: False
        """Says which deleted objects stay until `remove` (a kubelet's pods)."""
        self.refilled: Callable[[Kind, Object], bool] = lambda *_: False
        """Says which objects a controller still gives dependents as they go."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Returns a copy of one object."""
        with self.changed:
            return copy.deepcopy(self._at(kind, namespace, name))

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Returns copies of all objects of a kind, of one or all namespaces."""
        with self.changed:
            return [
                copy.deepcopy(found)
                for (plural, place, _), found in sorted(self._all.items())
                if plural == kind.full_name and namespace in ("", place)
            ]

    def create(self, kind: Kind, namespace: str, body: Mapping[str, Any]) -> Object:
        """Adds an object and collects it at once if all its owners are gone."""
        with self.changed:
            made = copy.deepcopy(dict(body))
            meta = made.setdefault("metadata", {})
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
            key = (kind.full_name, namespace, meta["name"])
            if key in self._all:
                raise Failure(
                    409,
                    "AlreadyExists",
                    f'{kind.full_name} "{meta["name"]}" already exists',
                )
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=now())
            if kind.full_name not in _UNCOUNTED:
                meta["generation"] = 1
            if not meta.get("labels"):
                meta.pop("labels", None)  # what is empty is absent
            if namespace:
                meta["namespace"] = namespace
            made.update(apiVersion=kind.api_version, kind=kind.kind)
            _complete(kind, made)
            self._all[key], self._kinds[kind.full_name] = made, kind
            self._note("ADDED", kind, made)
            result = copy.deepcopy(made)
            self._collect()
            return result

    def update(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], None]
    ) -> Object:
        """Changes an object; a deleted one goes with its last finalizer."""
        with self.changed:
            found = self._at(kind, namespace, name)
            changed = copy.deepcopy(found)
            change(changed)
            stated = changed["metadata"].get("resourceVersion")
            if stated not in (None, found["metadata"]["resourceVersion"]):
                raise Failure(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {kind.full_name} "{name}": the '
                    "object has been modified; please apply your changes to the "
                    "latest version and try again",
                )
            if changed != found:
                counts = "generation" in changed["metadata"]
                if counts and changed.get("spec") != found.get("spec"):
                    changed["metadata"]["generation"] += 1
                self._all[kind.full_name, namespace, name] = changed
                self._note("MODIFIED", kind, changed)
            self._finish(kind, changed)
            result = copy.deepcopy(changed)
            self._collect()
            return result

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        policy: str = "Background",
        preconditions: Mapping[str, str] | None = None,
    ) -> Object:
        """Deletes an object: at once, or when finalizers and dependents are gone."""
        with self.changed:
            found = self._at(kind, namespace, name)
            meta = found["metadata"]
            for field, value in (preconditions or {}).items():
                if value is not None and meta[field] != value:
                    raise Failure(
                        409,
                        "Conflict",
                        f"Precondition failed: {field} in precondition: {value}, "
                        f"{field} in object meta: {meta[field]}",
                    )
            if policy == "Orphan":
                self._orphan(meta["uid"])
            if policy == "Foreground":
                meta.setdefault("finalizers", []).append(FOREGROUND)
            if "deletionTimestamp" not in meta:
                meta["deletionTimestamp"] = now()
                self._note("MODIFIED", kind, found)
            result = copy.deepcopy(found)
            self._finish(kind, found)
            self._collect()
            return result

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Takes a lingering object away for good, if it is there."""
        with self.changed:
            found = self._all.get((kind.full_name, namespace, name))
            if found is not None:
                self._drop(kind, found)
                self._collect()

    def compact(self) -> None:
        """Forgets all events so far: watches from before get 410 Gone."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.events.clear()
            self.changed.notify_all()

    def since(self, version: int) -> Iterator[Event]:
        """Yields the events after a version; call it with `changed` held."""
        return (event for event in self.events if event.version > version)

    def _at(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return self._all[kind.full_name, namespace, name]
        except KeyError:
            message = f'{kind.full_name} "{name}" not found'
            raise Failure(404, "NotFound", message) from None

    def _note(self, type_: str, kind: Kind, found: Object) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self.events.append(Event(self.version, type_, kind, copy.deepcopy(found)))
        self.changed.notify_all()

    def _drop(self, kind: Kind, found: Object) -> None:
        meta = found["metadata"]
        del self._all[kind.full_name, meta.get("namespace", ""), meta["name"]]
        self._note("DELETED", kind, found)

    def _finish(self, kind: Kind, found: Object) -> None:
        meta = found["metadata"]
        if "deletionTimestamp" not in meta or meta.get("finalizers"):
            return
        if not self.lingering(kind, found):
            self._drop(kind, found)

    def _orphan(self, uid: str) -> None:
        for found in self._all.values():
            refs = found["metadata"].get("ownerReferences", [])
            kept = [ref for ref in refs if ref["uid"] != uid]
            if kept != refs:
                found["metadata"]["ownerReferences"] = kept

    def _collect(self) -> None:
        """Deletes what has lost all owners, until nothing changes."""
        while self._collect_once():
            pass

    def _collect_once(self) -> bool:
        uids = {f["metadata"]["uid"]: f["metadata"] for f in self._all.values()}
        blocked: set[str] = set()
        for (plural, namespace, name), found in list(self._all.items()):
            refs = found["metadata"].get("ownerReferences", [])
            living = [r for r in refs if r["uid"] in uids]
            going = [
                r["uid"]
                for r in living
                if FOREGROUND in uids[r["uid"]].get("finalizers", [])
            ]
            blocked.update(
                r["uid"] for r in living if r.get("blockOwnerDeletion") is True
            )
            lost = bool(refs) and len(going) == len(living)
            if lost and "deletionTimestamp" not in found["metadata"]:
                policy = "Foreground" if going else "Background"
                self.delete(self._kinds[plural], namespace, name, policy=policy)
                return True
        for (plural, _, _), found in list(self._all.items()):
            meta = found["metadata"]
            if FOREGROUND in meta.get("finalizers", []) and meta["uid"] not in blocked:
                if self.refilled(self._kinds[plural], found):
                    continue
                meta["finalizers"] = [f for f in meta["finalizers"] if f != FOREGROUND]
                self._finish(self._kinds[plural], found)
                return True
        return False


def _complete(kind: Kind, made: Object) -> None:
    """Adds what the API itself writes into a new object."""
    if kind.full_name == "namespaces":
        meta = made["metadata"]
        named = {"kubernetes.io/metadata.name": meta["name"]}
        meta["labels"] = {**meta.get("labels", {}), **named}
        made.setdefault("spec", {"finalizers": ["kubernetes"]})
        made.setdefault("status", {"phase": "Active"})
    elif kind.full_name == "secrets":
        made.setdefault("type", "Opaque")
    elif kind.full_name == "resourcequotas":
        hard = made.get("spec", {}).get("hard", {})
        nothing = dict.fromkeys(hard, "0")
        made.setdefault("status", {"hard": hard, "used": nothing})
    elif kind.plural == "trainingruntimes":
        jobset = made.get("spec", {}).get("template", {}).get("spec", {})
        if "failurePolicy" in jobset:
            jobset["failurePolicy"].setdefault("restartStrategy", "Recreate")
        for job in jobset.get("replicatedJobs", ()):
            job.setdefault("groupName", "default")
