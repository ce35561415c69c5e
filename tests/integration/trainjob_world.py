"""A namespace with Kubeflow Trainer, and the training step in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import trained_world
from children import Child
from cluster.api import ClusterApi
from cluster.trainer import ROOT, TrainerController
from laptop import WORKLOAD
from patience import PATIENCE

from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.cluster.training import train_in_cluster
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.store.uri import open_store

QUICK = Timeouts(
    replace(API_RETRY, total=PATIENCE, first=0.02, longest=0.2, connect=1.0, read=2.0),
    watch=1.0,
    poll=0.05,
    pending=PATIENCE,
    queued=PATIENCE,
    gone=PATIENCE,
    unexplained=0.3,
    grace=8.0,
)
"""The same life, some thirty times as fast; tests of a limit set it themselves."""
PROGRAM = (sys.executable, str(ROOT / "tests" / "cluster" / "quick_worker.py"))
IMAGE = "registry.test/safescale-ammt/train_agents@sha256:" + "5" * 64
TAG = IMAGE.partition("@")[0] + ":1"
STEP = """
import json, sys
from dataclasses import replace
from pathlib import Path
from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.cluster.training import train_in_cluster
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.execution import stage

told = json.loads(sys.argv[1])
with stage("train_agents", told["model"]):
    train_in_cluster(
        Path(told["dataset"]), Path(told["architecture"]),
        Constitution.from_dict(told["rules"]),
        TrainingConfig.from_params(told["training"]),
        parents=told["parents"], model=Path(told["model"]),
        timeouts=Timeouts(replace(API_RETRY, **told["retry"]), **told["waits"]),
    )
"""
"""The step as a process of its own, as in its pod."""


@dataclass(frozen=True)
class Trained:
    """Inputs of a training, and the model that local training made of them."""

    dataset: Path
    architecture: Path
    rules: dict[str, Any]
    training: dict[str, Any]
    model: Path

    @property
    def parents(self) -> dict[str, str]:
        return dict(read_manifest(self.model).parents)


def trained_locally(folder: Path) -> Trained:
    """Prepares, searches and trains a small table, with backend local."""
    made = trained_world.build(folder)
    dataset, _, architecture, model = made.inputs
    training = dict(WORKLOAD["training"])
    return Trained(dataset, architecture, made.constitution, training, model)


@dataclass
class World:
    """The namespace, its store, and what steps said."""

    api: ClusterApi
    trained: Trained
    folder: Path
    store: str
    environ: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    timeouts: Timeouts = QUICK
    program: tuple[str, ...] = PROGRAM
    """Runs in the pods; () = the TrainJob's own command."""
    reports: bool = False
    """Whether pods may report their progress (Trainer's gate TrainJobStatus)."""

    def __post_init__(self) -> None:
        self.api.add("trainingruntimes", "safescale-torch", spec={})
        self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.held = self.folder / "go"

    @contextmanager
    def trainer(
        self, *, hold: bool = False, schedules: bool = True, **quick: str
    ) -> Iterator[TrainerController]:
        """Runs the controller; `quick` goes to the stand-in of the worker."""
        environ = {
            "SAFESCALE_STORE": self.store,
            "QUICK_MODEL": str(self.trained.model),
            **({"QUICK_HOLD": str(self.held)} if hold else {}),
            **{f"QUICK_{key.upper()}": value for key, value in quick.items()},
            **self.environ,
        }
        token = self.folder / "token" if self.reports else None
        if token:
            token.write_text(self.api.token, encoding="utf-8")
        with TrainerController(
            self.api, environ, self.program, schedules, token
        ) as controller:
            yield controller

    def pod(self, name: str) -> dict[str, Any]:
        """Adds the pod of a step."""
        return self.api.add(
            "pods",
            name,
            spec={"containers": [{"name": "wait"}, {"name": "main", "image": TAG}]},
            status={
                "phase": "Running",
                "containerStatuses": [
                    {"name": "main", "imageID": f"docker-pullable://{IMAGE}"}
                ],
            },
        )

    def step(self, pod: str = "", **training: Any) -> Path:
        """Runs the step here; returns the model that it wrote."""
        model = self.folder / f"out-{len(self.said)}-{pod}" / "model"
        config = {**self.trained.training, "backend": "trainjob", **training}
        train_in_cluster(
            self.trained.dataset,
            self.trained.architecture,
            Constitution.from_dict(self.trained.rules),
            TrainingConfig.from_params(config),
            parents=self.trained.parents,
            model=model,
            environ=self.environment(pod),
            timeouts=self.timeouts,
            say=self.said.append,
        )
        return model

    @contextmanager
    def stepping(self, pod: str = "", **training: Any) -> Iterator[Future[Path]]:
        """Runs the step beside the block, for a test that disturbs it."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.step, pod, **training)
            try:
                yield future
            finally:
                self.release()

    def start(self, pod: str, **training: Any) -> Child:
        """Starts the step as a process, for a test that kills it."""
        waits = asdict(self.timeouts)
        retry = waits.pop("retry")
        del retry["statuses"]  # a set, which JSON does not know
        told = {
            "dataset": str(self.trained.dataset),
            "architecture": str(self.trained.architecture),
            "rules": self.trained.rules,
            "training": {**self.trained.training, "backend": "trainjob", **training},
            "parents": self.trained.parents,
            "model": str(self.folder / f"process-{pod}" / "model"),
            "retry": retry,
            "waits": waits,
        }
        return Child(
            [sys.executable, "-c", STEP, json.dumps(told)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment(pod)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment(self, pod: str) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "SAFESCALE_STORE": self.store,
            "HOSTNAME": pod,
            **self.environ,
        }

    def release(self) -> None:
        """Lets workers go on that were told to hold."""
        self.held.touch()

    def job(self) -> dict[str, Any]:
        """Returns the one TrainJob."""
        (found,) = self.api.list("trainjobs")
        return found

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits until something is true."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def holding(self) -> bool:
        """Says whether the worker of rank 0 runs and holds."""
        logs = [log.lines for log in self.api.logs.values()]
        return any(text == "holding" for lines in logs for _, text in lines)

    def left(self) -> list[str]:
        """Lists what is in the namespace besides what was there before."""
        kinds = ("trainjobs", "jobsets", "jobs", "pods", "configmaps")
        names = [
            f"{k}/{f['metadata']['name']}" for k in kinds for f in self.api.list(k)
        ]
        return [n for n in names if not n.startswith("pods/step-")]

    def stored(self) -> set[str]:
        """Lists the parts of the training store that hold anything."""
        store = open_store(self.store, environ=self.environ)
        keys = [info.key.split("/") for info in store.list()]
        return {f"{k[0]}/{k[1]}" if k[0] == "inputs" else k[2] for k in keys}

    def lines(self) -> list[str]:
        """Returns the worker's lines that reached the step's log."""
        return [said for said in self.said if "line" in said and "TrainJob" not in said]


def threads() -> set[str]:
    """Names the threads that a step may have left behind."""
    return {t.name for t in threading.enumerate() if t.name == "log"}
