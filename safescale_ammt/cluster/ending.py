"""How a job ends: deleted with its pods, failed, or failed with its model whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.pods import ended_by, living
from safescale_ammt.cluster.refusals import ApiRefusal
from safescale_ammt.cluster.resources import TRAINJOBS
from safescale_ammt.cluster.trainjob import condition
from safescale_ammt.cluster.watch import changes
from safescale_ammt.errors import ClusterError


class JobFailed(ClusterError):
    """The job failed, and the cluster says no more than this.

    Attributes:
        ended: how its containers ended, in the cluster's words; "" if unknown.
    """

    def __init__(self, sentence: str, ended: str = "") -> None:
        super().__init__(sentence)
        self.ended = ended


def place(api: Api, name: str) -> str:
    """Names a job in a sentence."""
    return f"TrainJob {api.namespace}/{name}"


def failure_of(api: Api, live: Mapping[str, Any]) -> JobFailed:
    """Returns the error of a job that failed, with all that the cluster says."""
    failed = condition(live, "Failed") or {}
    why = failed.get("message") or failed.get("reason") or "no reason is given"
    name = str(live["metadata"]["name"])
    ended = ended_by(api, name)
    how = f" ({ended})" if ended else ""
    return JobFailed(f"{place(api, name)} failed: {why}{how}; its log is above.", ended)


def delete(api: Api, live: Mapping[str, Any]) -> None:
    """Deletes the very object that was read; its pods end after it."""
    # By uid: a new job of the same name may be another run's. Never in the foreground:
    # Trainer 2.3 makes new pods of a job that still stands, whether it goes or not
    # (kubeflow/trainer 2.3.0, pkg/controller/trainjob_controller.go, Reconcile).
    options = {
        "propagationPolicy": "Background",
        "preconditions": {"uid": live["metadata"]["uid"]},
    }
    try:
        api.call("delete", TRAINJOBS, live["metadata"]["name"], body=options)
    except ApiRefusal as answer:
        if answer.status not in (404, 409):  # 409: the uid is another by now
            raise


def remove(api: Api, live: Mapping[str, Any]) -> None:
    """Deletes an object and waits until it is gone; its pods may still run.

    Raises:
        ClusterError: something holds it.
    """
    delete(api, live)
    deadline = api.clock() + api.timeouts.gone
    uid, name = live["metadata"]["uid"], str(live["metadata"]["name"])
    for now in changes(api, name):
        if now is None or now["metadata"]["uid"] != uid:
            return
        if api.clock() > deadline:
            raise ClusterError(
                f"{place(api, name)} has been deleted for {api.timeouts.gone:g} s and "
                f"is still there (finalizers {now['metadata'].get('finalizers', [])}); "
                f"see what holds it: kubectl describe trainjob -n {api.namespace} "
                f"{name}"
            )


def let_pods_end(api: Api, name: str, is_there: Callable[[], bool]) -> bool:
    """Waits until no pod of a job, or of one before it of the same name, runs.

    Args:
        api: where they run.
        name: the job's.
        is_there: says whether the model is there, which ends the waiting at once.

    Returns:
        Whether it is there.

    Raises:
        ClusterError: pods are still there after `Timeouts.gone` seconds.
    """
    deadline, said = api.clock() + api.timeouts.gone, False
    while not is_there() and (names := living(api, name)):
        shown = ", ".join(names[:4])
        if api.clock() > deadline:
            raise ClusterError(
                f"Pods of {place(api, name)} still run {api.timeouts.gone:g} s after "
                f"their job has ended ({shown}); see what holds them: kubectl describe "
                f"pod -n {api.namespace} {names[0]}"
            )
        if not said:
            said = True
            api.say(f"Pods of {place(api, name)} have not ended yet: {shown}.")
        api.sleep(api.timeouts.poll)
    return is_there()
