"""What the next recurring run of a schedule shall be, and making it the newest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow import recurring
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.recurring import RecurringRun, Settled, settle
from pipelines.kubeflow.takeover import Takeover
from pipelines.kubeflow.timing import Clock, Timing
from safescale_ammt.files.canonical import digest_json


@dataclass(frozen=True)
class Order:
    """What the next recurring run of a schedule shall be.

    Attributes:
        name: of the schedule.
        digest: of all of it.
        timing: its times.
        content: pipeline, parameters, account and experiment, in the API's form.
    """

    name: str
    digest: str
    timing: Timing
    content: Mapping[str, Any]

    @classmethod
    def new(cls, name: str, run_spec: RunSpec, timing: Timing, **more: str) -> Order:
        """Returns what was asked for; `more` is account, experiment and its id."""
        import kfp_server_api as kfp

        spec, parameters = run_spec.pipeline.to_api(), dict(run_spec.parameters)
        asked = {
            "spec": spec,
            "parameters": parameters,
            "timing": timing.to_dict(),
            "experiment": more["experiment"],
            "account": more["account"],
        }
        content = {
            "pipeline_spec": spec,
            "runtime_config": kfp.V2beta1RuntimeConfig(parameters=parameters),
            "service_account": more["account"],
            "experiment_id": more["experiment_id"],
        }
        return cls(name, digest_json(asked), timing, content)

    @classmethod
    def of(cls, head: RecurringRun) -> Order:
        """Returns the order that a recurring run was made by."""
        keys = ("pipeline_spec", "runtime_config", "service_account", "experiment_id")
        content = {key: getattr(head.item, key) for key in keys}
        return cls(head.name, head.digest, head.timing, content)

    @property
    def spends(self) -> bool:
        """Whether its runs use up sealed rows."""
        values = self.content["runtime_config"].parameters or {}
        return not (values.get("safety") or {}).get("rehearse")

    def keep(
        self,
        kubeflow: Kubeflow,
        history: list[RecurringRun],
        clock: Clock,
        *,
        paused: bool,
    ) -> tuple[str, Settled]:
        """Brings a head that was made by this order to what is wanted of it.

        Returns:
            A sentence, "" if there is no such head any more; and what is there.
        """
        if paused and not history[-1].paused:
            why = "somebody switched it off in Kubeflow"
            sentence = f"Schedule {self.name!r} {stays_paused(self.name)} ({why})."
            return sentence, Settled(history, [], changed=False)
        # Settled even so: the call that created it may have died before it fired.
        settled = settle(kubeflow, self.name, clock)
        if not settled.stands or settled.history[-1].digest != self.digest:
            return "", settled
        state = "fires again" if settled.changed else "is unchanged"
        state = stays_paused(self.name) if paused else f"{state}: {self.timing}"
        return f"Schedule {self.name!r} {state}.{settled.lost}", settled

    def place(
        self,
        kubeflow: Kubeflow,
        history: list[RecurringRun],
        clock: Clock,
        *,
        paused: bool,
        wait: float,
    ) -> Placed:
        """Makes it the newest of a history, which `settle` then makes fire alone.

        Raises:
            InputError: not allowed or not understood.
            Unreachable: the API stayed away; the same call again goes on from there.
            SafescaleError: a run goes on whose sealed rows the next would judge again.
        """
        head = history[-1] if history else None
        grid = head.timing.start if head and head.timing.every else None
        since, goes_on = None, ""
        if head and not paused:
            timing = self.timing.resolved(clock.now(), grid)
            takeover = Takeover(history, timing, self.spends)
            since, goes_on = takeover.await_quiet(kubeflow, self.name, wait, clock)
        timing = self.timing.resolved(clock.now(), grid, since)
        body = self.body(head.number + 1 if head else 1, timing, paused=paused)
        before = {recurring_run.id for recurring_run in history}
        made = recurring.create(kubeflow, body, self.name, before)
        return Placed(made, timing, goes_on)

    def body(self, number: int, timing: Timing, *, paused: bool) -> Any:
        """Returns the recurring run to create, as the `number`th of the schedule."""
        import kfp_server_api as kfp

        return kfp.V2beta1RecurringRun(
            display_name=self.name,
            description=recurring.note(self.name, number, self.digest, paused=paused),
            # Disabled, so that a caller that dies here leaves the older one firing
            # alone. Where there is none, it could not be told from a paused one.
            mode="DISABLE" if number > 1 or paused else "ENABLE",
            max_concurrency=str(timing.concurrency),
            no_catchup=not timing.catch_up,
            trigger=timing.trigger(),
            **self.content,
        )


@dataclass(frozen=True)
class Placed:
    """A recurring run that was just made.

    Attributes:
        id: its id.
        timing: its times.
        goes_on: which run of an older one goes on, as a sentence; "" = none.
    """

    id: str
    timing: Timing
    goes_on: str

    @property
    def when(self) -> str:
        """Its times, for people."""
        first = self.timing.start
        # A cron expression is read in the controller's zone, which is not known here.
        shown = f", next at {first:%Y-%m-%d %H:%M:%S} UTC" if first else ""
        return f"{self.timing}{shown}" if self.timing.every else str(self.timing)


def stays_paused(name: str) -> str:
    """Returns how a schedule stays paused, and what would change that."""
    return f"stays paused; `safescale schedule resume {name}` lets it fire"
