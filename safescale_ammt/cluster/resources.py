"""The kinds of objects that this package calls, and their paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """A kind of object that this package calls."""

    group: str
    version: str
    plural: str

    @property
    def full_name(self) -> str:
        """Plural and group, as messages of the API spell it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Returns the path of the collection, of one object or of a part of it."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = (root, self.version, "namespaces", namespace, self.plural, name, sub)
        return "/".join(filter(None, parts))


TRAINJOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs")
RUNTIMES = Resource("trainer.kubeflow.org", "v1alpha1", "trainingruntimes")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
