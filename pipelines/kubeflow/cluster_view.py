"""A run as Kubernetes shows it, for who may look there: KFP's API knows states alone.

Without a right, a kubeconfig or an API that answers, a sentence names the command that
somebody else can give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.reasons import warnings_of
from safescale_ammt.cluster.refusals import OutOfReach
from safescale_ammt.cluster.run_pods import (
    MAIN,
    RUN_LABEL,
    STAGE_LABEL,
    StepEnd,
    is_away,
    node_end,
    pods_of_run,
    step_end,
    told_by_log,
    why_waiting,
    workflows_of_run,
)
from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.errors import Interrupted, SafescaleError

Seen = TypeVar("Seen")
_CONFIG = Path("~/.kube/config")
_PATIENCE = 5.0  # seconds; a person waits for the run, not for its reason


@dataclass
class ClusterView:
    """The namespace of a run, as far as this caller may see it.

    Attributes:
        namespace: where its pods run.
        environ: names the cluster (KUBECONFIG, or a pod's own).
        has_workflow: whether a Workflow of the run was seen there once.
    """

    namespace: str
    environ: Mapping[str, str]
    has_workflow: bool = False
    _api: Api | None = None
    _blind: set[str] = field(default_factory=set)

    def why_waiting(self, run: str) -> str:
        """Says why a run stands still, in the cluster's own words; "" = not known."""

        def look(api: Api) -> str:
            pods = pods_of_run(api, run)
            # Each without the other two, where not all may be read.
            workflows = self._try("workflows", lambda a: workflows_of_run(a, run))
            return why_waiting(pods, warnings_of(api), workflows or ())

        return self._try("pods", look) or ""

    def step_end(self, run: str, pod: str) -> StepEnd | None:
        """Says how a step ended; None = not known."""

        def look(api: Api) -> StepEnd | None:
            end = step_end(pods_of_run(api, run), pod)
            if end is None:
                workflows = self._try("workflows", lambda a: workflows_of_run(a, run))
                return node_end(workflows or (), pod)
            if end.sentence:
                return end
            told = told_by_log(api, end.pod)
            return replace(end, sentence=told, lost=end.lost or is_away(told))

        return self._try("pods", look)

    def shows_workflow(self, run: str) -> bool | None:
        """Says whether a run's Workflow is there; None = not known."""
        found = self._try("workflows", lambda api: workflows_of_run(api, run))
        self.has_workflow = self.has_workflow or bool(found)
        return None if found is None else bool(found)

    @property
    def host(self) -> str:
        """Address of the cluster that was asked; "" = none was."""
        return self._api.host if self._api else ""

    def _try(self, what: str, look: Callable[[Api], Seen]) -> Seen | None:
        """Looks, or gives up, for good where it is a right that is missing."""
        named = self.environ.get("KUBECONFIG") or _CONFIG.expanduser().is_file()
        inside = self.environ.get("KUBERNETES_SERVICE_HOST")
        # Who has no cluster is spared the second that the client takes to load.
        if what in self._blind or not (named or inside):
            return None
        try:
            if self._api is None:
                # A person waits, so an API that is away is not waited for long.
                retry = replace(API_RETRY, total=_PATIENCE, longest=1.0, read=10.0)
                quiet: Any = lambda _: None  # noqa: E731
                self._api = Api.connect(self.environ, Timeouts(retry), say=quiet)
                self._api.namespace = self.namespace
            return look(self._api)
        except Interrupted:
            raise
        except OutOfReach:
            return None
        except SafescaleError:
            self._blind.add(what)
            return None


def log_command(namespace: str, run: str, step: str) -> str:
    """Returns the command that shows the log of a step, or of all of KFP's own."""
    stage = f",{STAGE_LABEL}={step}" if step else ""
    return (
        f"`kubectl -n {namespace} logs -l {RUN_LABEL}={run}{stage} -c {MAIN} "
        "--prefix --tail=40`"
    )


def pods_command(namespace: str, run: str) -> str:
    """Returns the command that says what the pods of a run wait for."""
    return f"`kubectl -n {namespace} describe pods -l {RUN_LABEL}={run}`"
