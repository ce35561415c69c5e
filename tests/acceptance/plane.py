"""The Kubeflow under test: who we are there, what we made there, what we see of it.

What is tested is the command line, as people and CI call it, in processes of its own.
What is observed comes from the servers themselves: KFP's API, Kubernetes' API, and the
gate's record in the store.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from commands import Command, Done
from workload import Table, write_workload

from pipelines.compile import compile_train
from pipelines.image_lock import Lock
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.answers import Rejection
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.session import Session
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
RUN_LABEL = "pipeline/runid"
PART_LABEL = "app.kubernetes.io/component"


@dataclass
class Plane:
    """A Kubeflow, its cluster and its store.

    Attributes:
        folder: for files of this call alone.
        namespace: of runs, secrets and rights.
        uri: of the data store.
        options: of the product's commands: which images, how large the pods.
        patience: seconds that anything may take.
        beat: seconds between two looks.
        quiet: seconds in which a schedule of every minute fires at least once more.
        id: is part of every name that this call makes.
        left: what could not be taken away, and why.
        stays: what is a record and is never taken away.
    """

    folder: Path
    namespace: str
    uri: str
    options: tuple[str, ...] = ()
    patience: float = 1800.0
    beat: float = 2.0
    quiet: float = 150.0
    id: str = field(default_factory=lambda: secrets.token_hex(3))
    left: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    _commands: list[Command] = field(default_factory=list)
    _submitted: dict[str, Command] = field(default_factory=dict)
    _undo: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    # --- names and inputs

    def name(self, what: str) -> str:
        """Returns a name that nothing else has: `acceptance-<id>-<what>`."""
        return f"acceptance-{self.id}-{what}"

    @cached_property
    def store(self) -> Store:
        """The data store, with the keys of this environment."""
        return open_store(self.uri)

    def table(self, what: str, seed: int = 0, rows: int = 12_000) -> Table:
        """Returns the rows of a check; other people in each check and in each call."""
        # Sealed rows that two checks shared would be spent by whichever comes first.
        return Table(what, crc32(f"{self.id}/{what}/{seed}".encode()), rows)

    def put_rows(self, what: str, *, seed: int = 0, rows: int = 12_000) -> str:
        """Puts rows into the store, below `data/`, and returns their URI."""
        table = self.table(what, seed, rows)
        key = f"data/acceptance-{self.id}/{what}.csv"
        self.store.put(key, table.csv())
        self.later(f"rows {key}", lambda: self.store.delete(key))
        return f"{self.store.uri}/{key}"

    def workload(self, what: str, source: str = "", **sections: Any) -> Path:
        """Writes a workload whose rows are in the store, and returns its file."""
        uri = source or self.put_rows(what)
        folder = self.folder / what
        return write_workload(folder, uri, self.name(what), **sections)

    # --- the product

    def command(self, *arguments: str, environ: Mapping[str, str] = {}) -> Command:
        """Starts a command of the product."""
        if arguments[0] in {"submit", "schedule"} and not self.stays:
            self.stays = [
                f"runs of experiment {self.name('runs')} in Kubeflow",
                f"what they recorded below runs/, ledger/ and sealed/ of {self.uri}",
                f"registered models {self.name('...')}",
            ]
        command = Command(
            [sys.executable, "-m", "pipelines", *arguments],
            folder=self.folder,
            environ={**os.environ, **environ, "PYTHONUNBUFFERED": "1"},
        )
        self._commands.append(command)
        return command

    def safescale(self, *arguments: str, **options: Any) -> Done:
        """Runs a command of the product to its end."""
        return self.command(*arguments, **options).end(self.patience)

    def submit(self, what: str, workload: Path, *more: str) -> Command:
        """Submits a run under a name of ours and follows it."""
        poll = ("--poll", f"{self.beat:g}")
        name = ("--name", self.name(what), "--experiment", self.name("runs"))
        where = ("--namespace", self.namespace, "--store", self.uri)
        given = ("--config", str(workload), *where, *self.options)
        command = self.command("submit", *given, *name, *poll, *more)
        self._submitted[self.name(what)] = command
        return command

    def schedule(self, *arguments: str) -> Done:
        """Runs `safescale schedule list|pause|resume` to its end."""
        return self.safescale("schedule", *arguments, "--namespace", self.namespace)

    def image(self, stage: str) -> str:
        """Returns the image that a stage of this call's runs has."""
        options = dict(zip(self.options[::2], self.options[1::2], strict=False))
        lock = options.get("--images")
        text = compile_train(
            image_prefix=options.get("--image-prefix"),
            images=Lock.load(Path(lock)) if lock else None,
        )
        executor = CompiledPipeline.parse(text).executors[f"exec-{stage}"]
        return str(executor["container"]["image"])

    # --- KFP

    @cached_property
    def kubeflow(self) -> Kubeflow:
        """The API, as the product reaches it."""
        session = Session.find(os.environ, namespace=self.namespace)
        return Kubeflow(session, RetryPolicy(total=120))

    def run_id(self, what: str) -> str:
        """Waits until the run of a check is there, and returns its id."""
        name = self.name(what)

        def find() -> str:
            command = self._submitted.get(name)
            ended = command is not None and not command.running
            found = self._find(name)
            if ended and not found and command:
                last = command.end(self.patience).last
                raise AssertionError(f"`submit` ended and made no run: {last}")
            return found

        run = self.until(find, f"No run {name!r} came to be.")
        self.later(f"run {name}", lambda: self.terminate(run))
        return str(run)

    def _find(self, name: str) -> str:
        runs = self.kubeflow.pages(
            f"looking for run {name}",
            self.kubeflow.runs.run_service_list_runs,
            "runs",
            filter=equals(name=name),
            **self.kubeflow.scope,
        )
        return next((str(r.run_id) for r in runs if r.display_name == name), "")

    def run(self, run_id: str) -> Any:
        """Returns a run as KFP shows it."""
        return self.kubeflow.call(
            f"reading run {run_id}",
            self.kubeflow.runs.run_service_get_run,
            run_id=run_id,
        )

    def terminate(self, run_id: str) -> None:
        """Ends a run as the button of KFP's pages does."""
        stop = self.kubeflow.runs.run_service_terminate_run
        try:
            if self.run(run_id).state not in (*ENDED, "CANCELING"):
                self.kubeflow.call(f"stopping run {run_id}", stop, run_id=run_id)
        except Rejection:
            # It may have ended between the look and the order.
            if self.run(run_id).state not in (*ENDED, "CANCELING"):
                raise

    def outcome(self, run_id: str) -> RunOutcome:
        """Returns what the gate recorded."""
        outcome = RunOutcome.read(self.store, run_id)
        assert outcome is not None, f"The gate left no record of run {run_id}."
        return outcome

    # --- waiting and tidying

    def until(
        self,
        holds: Callable[[], Any],
        sentence: str | Callable[[], str],
        within: float = 0.0,
    ) -> Any:
        """Waits until something holds and returns it.

        Raises:
            AssertionError: it did not within the time; with the sentence.
        """
        deadline = time.monotonic() + (within or self.patience)
        while not (found := holds()):
            if time.monotonic() >= deadline:
                raise AssertionError(
                    sentence if isinstance(sentence, str) else sentence()
                )
            time.sleep(self.beat / 2)
        return found

    def within(self, seconds: float) -> float:
        """Returns a time of a real plane, as this plane counts it."""
        return max(seconds * self.quiet / 150.0, 5 * self.beat)

    def rest(self) -> None:
        """Lets a time go by in which a schedule would fire, and stale answers end."""
        time.sleep(self.quiet)

    def later(self, what: str, undo: Callable[[], object]) -> None:
        """Remembers what to take away at the end, newest first."""
        self._undo.append((what, undo))

    def tidy(self) -> None:
        """Ends what goes on and takes away what was made; what is left is listed."""
        for command in self._commands:
            command.kill()
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except Exception as error:  # noqa: BLE001  the rest is to go all the same
                self.left.append(f"{what}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Returns the sentence of an error, without what a client adds to it."""
    # An API's client puts the reason below the number.
    lines = (str(error).strip() or type(error).__name__).splitlines()
    status, reason = (getattr(error, name, None) for name in ("status", "reason"))
    return f"HTTP {status} {reason}" if status and reason else lines[0][:300]


def skip_unless(condition: object, sentence: str) -> None:
    """Skips a check that this plane cannot hold."""
    if not condition:
        pytest.skip(sentence)
