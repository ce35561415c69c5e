"""The life of a TrainJob: made or adopted, followed, replaced, stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from safescale_ammt.cluster import owner as owners
from safescale_ammt.cluster import waiting
from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.logs import Follower
from safescale_ammt.cluster.owner import Owner
from safescale_ammt.cluster.refusals import ApiRefusal, Denied
from safescale_ammt.cluster.resources import RUNTIMES, TRAINJOBS
from safescale_ammt.cluster.trainjob import (
    JobState,
    TrainJob,
    condition,
    progress,
    state,
)
from safescale_ammt.cluster.waiting import Wait
from safescale_ammt.cluster.watch import changes
from safescale_ammt.errors import ClusterError, ClusterInputError, SafescaleError

_ATTEMPTS = 5
"""Times that a job is made anew when it vanishes or changes under our hands."""


class JobFailed(ClusterError):
    """The job failed, and the cluster says no more than this."""


@dataclass(frozen=True)
class Product:
    """What a job leaves in the object store, as far as its life depends on it."""

    is_there: Callable[[], bool] = lambda: True
    """Says whether the model is there, whole."""
    forget: Callable[[], None] = lambda: None
    """Deletes what an earlier attempt reported; called before a job is made."""


class Life:
    """One job from its making to its end, seen from the stage's pod."""

    def __init__(
        self,
        api: Api,
        job: TrainJob,
        owner: Owner | None,
        product: Product,
    ) -> None:
        self._api = api
        self._job = job
        self._owner = owner
        self._product = product
        self._where = f"TrainJob {api.namespace}/{job.name}"

    def run(self) -> None:
        """Makes or adopts the job and follows it until it is complete.

        Raises:
            JobFailed: it failed.
            ClusterInputError: no right, no runtime, no Trainer, or the name is taken.
            ClusterError: the API stayed away, or no pod started in time.
        """
        for _ in range(_ATTEMPTS):
            self.ensure()
            if self._follow() or self._product.is_there():
                return
            self._api.say(f"{self._where} is gone; somebody deleted it. Once more.")
        raise ClusterError(
            f"{self._where} was deleted {_ATTEMPTS} times while it was waited for; "
            "find out who deletes it (kubectl get events), then run again."
        )

    def check_runtime(self) -> None:
        """Looks for the runtime before anything is sent or made.

        Raises:
            ClusterInputError: it is not there, or Trainer is not installed.
        """
        try:
            self._api.call("get", RUNTIMES, self._job.runtime)
        except ApiRefusal as answer:
            if answer.status == 403:  # The Role names ours; another may be there.
                self._api.say(f"{answer} The runtime is not looked for beforehand.")
                return
            raise self._explained(answer) from None

    def ensure(self) -> None:
        """Makes sure that the job is there: creates, adopts or replaces it.

        Raises:
            ApiRefusal: it may not or cannot be made; one sentence.
            ClusterInputError: the name is taken by something else.
        """
        for _ in range(_ATTEMPTS):
            found = self.read()
            if found is None:
                if self._create():
                    return
            elif not self._job.is_it(found):
                raise self._taken()
            elif self._is_of_use(found):
                if self._adopt(found):
                    return
            else:
                self._api.say(f"{self._where} is {state(found).value}; replacing it.")
                self._remove(found)
        raise ClusterError(
            f"{self._where} could not be made in {_ATTEMPTS} attempts: it is made and "
            "deleted by somebody else at the same time."
        )

    def read(self) -> dict[str, Any] | None:
        """Returns the job as the API has it, None if it is not there."""
        try:
            return self._api.call("get", TRAINJOBS, self._job.name)
        except ApiRefusal as answer:
            if answer.status != 404:
                raise
            return None

    def stop(self) -> None:
        """Lets go of the job within the grace period: deletes it as a rule.

        Checkpoints stay in the object store. It raises nothing: what it could not
        do, it says.
        """
        hasty = self._api.hasty(self._api.timeouts.grace)
        if done := Life(hasty, self._job, self._owner, self._product).discard():
            self._api.say(f"{self._where} {done}.")

    def discard(self) -> str:
        """Lets go of the job; says it if that fails. Returns what was done."""
        try:
            return self._let_go()
        except SafescaleError as error:
            self._api.say(f"{self._where} could not be deleted: {error}")
            return ""

    def _let_go(self) -> str:
        """Deletes the job unless other pods wait for it; returns what was done."""
        for _ in range(_ATTEMPTS):
            found = self.read()
            if found is None or not self._job.is_it(found):
                return ""
            try:
                if owners.disown(self._api, found, self._owner):
                    return "goes on, another run waits for it too"
            except ApiRefusal as answer:
                if answer.status not in (404, 409):  # 409: another let go meanwhile
                    raise
            else:
                self._delete(found)
                return "was deleted, its checkpoints stay in the store"
        return "changes too often to be let go of"

    def _is_of_use(self, found: dict[str, Any]) -> bool:
        if state(found) is JobState.COMPLETE:
            return self._product.is_there()
        return state(found) in (JobState.ACTIVE, JobState.SUSPENDED)

    def _taken(self) -> ClusterInputError:
        return ClusterInputError(
            f"{self._where} is there and was not made for this training (its "
            "annotation safescale-ammt/request differs); rename or delete it: kubectl "
            f"delete trainjob -n {self._api.namespace} {self._job.name}"
        )

    def _create(self) -> bool:
        """Creates the job; says whether it did, or found the name taken."""
        refs = [self._owner.reference] if self._owner else []
        self._product.forget()
        try:
            self._api.call("create", TRAINJOBS, body=self._job.to_dict(refs))
        except ApiRefusal as answer:
            if answer.status == 409:
                return False
            raise self._explained(answer) from None
        self._api.say(
            f"{self._where} was created: {self._job.processes} processes on "
            f"{self._job.nodes} nodes"
            + (f", in queue {self._job.queue}." if self._job.queue else ".")
        )
        return True

    def _adopt(self, found: dict[str, Any]) -> bool:
        """Joins a job that is there; says whether that worked."""
        try:
            owners.adopt(self._api, found, self._owner)
        except ApiRefusal as answer:
            if answer.status in (404, 409):
                return False
            raise
        self._api.say(f"{self._where} is {state(found).value}; adopting it.")
        return True

    def _delete(self, found: dict[str, Any]) -> None:
        """Asks for deletion of the very object that was read, pods first."""
        options = {
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": found["metadata"]["uid"]},
        }
        try:
            self._api.call("delete", TRAINJOBS, self._job.name, body=options)
        except ApiRefusal as answer:
            if answer.status not in (404, 409):  # 409: another object by now
                raise

    def _remove(self, found: dict[str, Any]) -> None:
        """Deletes an object and waits until it and its pods are gone."""
        api = self._api
        self._delete(found)
        deadline = api.clock() + api.timeouts.gone
        uid = found["metadata"]["uid"]
        for now in changes(api, self._job.name):
            if now is None or now["metadata"]["uid"] != uid:
                return
            if api.clock() > deadline:
                raise ClusterError(
                    f"{self._where} has been deleted for {api.timeouts.gone:g} s and "
                    "is still there (finalizers "
                    f"{now['metadata'].get('finalizers', [])}); see what holds it: "
                    f"kubectl describe trainjob -n {api.namespace} {self._job.name}"
                )

    def _follow(self) -> bool:
        """Follows the job; returns whether it completed, or else is gone."""
        log = Follower(self._api, self._job.name, self._api.say)
        wait = Wait(self._api, self._job, self._where)
        told = ""
        try:
            for found in changes(self._api, self._job.name):
                if found is None or not self._job.is_it(found):
                    return False
                if progress(found) not in ("", told):
                    told = progress(found)
                    self._api.say(f"{self._where}: {told}.")
                if state(found) is JobState.COMPLETE:
                    log.finish(self._api.timeouts.retry.read)
                    return True
                if state(found) is JobState.FAILED:
                    log.finish(self._api.timeouts.retry.read)
                    raise self._failed(found)
                wait.look(found)
        finally:
            log.stop()
        raise AssertionError("changes() has ended")

    def _failed(self, found: dict[str, Any]) -> JobFailed:
        told = condition(found, "Failed") or {}
        why = told.get("message") or told.get("reason") or "no reason is given"
        ended = ""
        with suppress(SafescaleError):
            ended = waiting.ended_by(self._api, self._job.name)
        return JobFailed(
            f"{self._where} failed: {why}"
            + (f" ({ended})" if ended else "")
            + "; its log is above, a retry replaces it."
        )

    def _explained(self, answer: ApiRefusal) -> ClusterError:
        """Says what it means that the runtime or the job was refused."""
        if isinstance(answer, Denied):
            return answer
        runtime, namespace = self._job.runtime, self._api.namespace
        if runtime in answer.message and "not found" in answer.message:
            return ClusterInputError(
                f"TrainingRuntime {runtime} is not in namespace {namespace}; apply "
                "manifests/base there, or name another one in training.runtime."
            )
        if answer.status == 404 and "namespaces" not in answer.message:
            return ClusterInputError(
                f"The cluster at {self._api.host} knows no "
                "trainjobs.trainer.kubeflow.org/v1alpha1; install Kubeflow Trainer 2, "
                "or set training.backend: local."
            )
        return ClusterInputError(str(answer))
