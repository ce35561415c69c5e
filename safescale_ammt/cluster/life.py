"""The life of a TrainJob: made or adopted, followed, replaced, stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safescale_ammt.cluster import owner as owners
from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.ending import (
    delete,
    failure_of,
    let_pods_end,
    place,
    remove,
)
from safescale_ammt.cluster.logs import Follower
from safescale_ammt.cluster.owner import Owner
from safescale_ammt.cluster.refusals import ApiRefusal, Denied
from safescale_ammt.cluster.resources import RUNTIMES, TRAINJOBS
from safescale_ammt.cluster.trainjob import (
    JobState,
    TrainJob,
    progress,
    state,
)
from safescale_ammt.cluster.waiting import Wait
from safescale_ammt.cluster.watch import changes
from safescale_ammt.errors import ClusterError, ClusterInputError, SafescaleError

# Bounded: who deletes the job on purpose would do so for ever.
_ATTEMPTS = 5
"""Times that a job is made anew when it vanishes or changes meanwhile."""


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
        self._where = place(api, job.name)
        self.say = api.say

    def run(self) -> None:
        """Makes or adopts the job and follows it until its model is there.

        Raises:
            JobFailed: it failed, and no pod of it has handed a model over.
            ClusterInputError: no right, no runtime, no Trainer, or the name is taken.
            ClusterError: the API stayed away, or no pod started in time.
        """
        for _ in range(_ATTEMPTS):
            if not self.ensure() or self._follow() or self._product.is_there():
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
            raise self._explain(answer) from None

    def ensure(self) -> bool:
        """Makes sure that the job is there: creates, adopts or replaces it.

        Returns:
            Whether there is a job to follow; if not, pods of an earlier one have
            handed their model over meanwhile.

        Raises:
            ApiRefusal: it may not or cannot be made; one sentence.
            ClusterInputError: the name is taken by something else.
        """
        for _ in range(_ATTEMPTS):
            live = self.read()
            if live is not None:
                if self.adopt(live):
                    return True
                continue
            # Two generations of pods would write to the same place.
            if let_pods_end(self._api, self._job.name, self._product.is_there):
                return False
            if self._create():
                return True
        raise ClusterError(
            f"{self._where} could not be made in {_ATTEMPTS} attempts: it is made and "
            "deleted by somebody else at the same time."
        )

    def adopt(self, live: dict[str, Any]) -> bool:
        """Adopts the job as it was read, or removes it if it is of no use to anybody.

        Returns:
            Whether it is adopted; if not, it may have changed or gone meanwhile.

        Raises:
            ClusterInputError: the name is taken by something else.
        """
        if not self._job.matches(live):
            raise ClusterInputError(
                f"{self._where} is there and was not made for this training (its "
                "annotation safescale-ammt/request differs); rename or delete it: "
                f"kubectl delete trainjob -n {self._api.namespace} {self._job.name}"
            )
        status = state(live)
        ended = status in (JobState.COMPLETE, JobState.FAILED)
        done = ended and self._product.is_there()
        if not done and status not in (JobState.ACTIVE, JobState.SUSPENDED):
            # Failed, going, or complete without its model.
            self._api.say(f"{self._where} is {status.value}; replacing it.")
            remove(self._api, live)
            return False
        try:
            owners.adopt(self._api, live, self._owner)
        except ApiRefusal as answer:
            # 409: it has changed since it was read; 404: it is gone.
            if answer.status not in (404, 409):
                raise
            return False
        self._api.say(f"{self._where} is {status.value}; adopting it.")
        return True

    def read(self) -> dict[str, Any] | None:
        """Returns the job as the API has it, None if it is not there."""
        try:
            return self._api.call("get", TRAINJOBS, self._job.name)
        except ApiRefusal as answer:
            if answer.status != 404:
                raise
            return None

    def stop(self) -> None:
        """Lets go of the job as `discard` does, within the grace period; says so.

        Checkpoints stay in the object store.
        """
        # After SIGTERM the kubelet waits for its grace period and no longer.
        api = self._api.with_deadline(self._api.timeouts.grace)
        if done := Life(api, self._job, self._owner, self._product).discard():
            self._api.say(f"{self._where} {done}.")

    def discard(self) -> str:
        """Lets go of the job: deletes it unless other pods wait for it.

        It raises nothing: what it could not do, it says.

        Returns:
            What was done, "" if nothing was to be done or it failed.
        """
        try:
            for _ in range(_ATTEMPTS):
                live = self.read()
                if live is None or not self._job.matches(live):
                    return ""
                try:
                    if owners.disown(self._api, live, self._owner):
                        return "goes on, another run waits for it too"
                except ApiRefusal as answer:
                    if answer.status not in (404, 409):  # 409: another let go meanwhile
                        raise
                else:
                    delete(self._api, live)
                    return "was deleted, its checkpoints stay in the store"
        except SafescaleError as error:
            self._api.say(f"{self._where} could not be deleted: {error}")
            return ""
        return "changes too often to be let go of"

    def _create(self) -> bool:
        """Creates the job; returns False if the name has been taken meanwhile."""
        refs = [self._owner.reference] if self._owner else []
        # Before the job is there: what its pods report must not be deleted.
        self._product.forget()
        wait = Wait(self._api, self._job, self._where)
        while True:
            try:
                self._api.call("create", TRAINJOBS, body=self._job.to_dict(refs))
                break
            except ApiRefusal as answer:
                if answer.status == 409:
                    return False
                if not answer.is_full:
                    raise self._explain(answer) from None
                # Jobs that have ended count until somebody deletes them.
                wait.tell(answer.message)
            self._api.sleep(self._api.timeouts.poll)
        self._api.say(
            f"{self._where} was created: {self._job.processes} processes on "
            f"{self._job.nodes} nodes"
            + (f", in queue {self._job.queue}." if self._job.queue else ".")
        )
        return True

    def _follow(self) -> bool:
        """Follows the job; returns whether its model is there, or else it is gone."""
        log = Follower(self._api, self._job.name, self._api.say)
        wait = Wait(self._api, self._job, self._where)
        last_progress = ""
        try:
            for live in changes(self._api, self._job.name):
                if live is None or not self._job.matches(live):
                    return False
                if progress(live) not in ("", last_progress):
                    last_progress = progress(live)
                    self._api.say(f"{self._where}: {last_progress}.")
                failed = state(live) is JobState.FAILED
                if not failed and state(live) is not JobState.COMPLETE:
                    wait.look(live)
                    continue
                # A job fails at once when a pod of it is deleted, and that pod may
                # finish within its grace period.
                done = not failed or let_pods_end(
                    self._api, self._job.name, self._product.is_there
                )
                # The status may come before the last lines of the log do.
                log.finish(self._api.timeouts.retry.read)
                if not done:
                    raise failure_of(self._api, live)
                if failed:
                    self._api.say(f"{self._where} failed, but its model is whole.")
                return True
        finally:
            log.stop()
        raise AssertionError("changes() never ends by itself")

    def _explain(self, answer: ApiRefusal) -> ClusterError:
        """Returns the error that says why the runtime or the job was refused."""
        if isinstance(answer, Denied):
            return answer
        runtime, namespace = self._job.runtime, self._api.namespace
        # Trainer's webhook refuses a job of a runtime that is missing in these words.
        if runtime in answer.message and "not found" in answer.message:
            return ClusterInputError(
                f"TrainingRuntime {runtime} is not in namespace {namespace}; apply "
                "manifests/base there, or name another one in training.runtime."
            )
        # 404 on a collection means an unknown kind, unless the namespace is missing.
        if answer.status == 404 and "namespaces" not in answer.message:
            return ClusterInputError(
                f"The cluster at {self._api.host} knows no "
                "trainjobs.trainer.kubeflow.org/v1alpha1; install Kubeflow Trainer 2, "
                "or set training.backend: local."
            )
        return ClusterInputError(str(answer))
