"""Kubeflow Trainer and a kubelet, as far as a TrainJob notices them.

A job that is not suspended gets a JobSet and one pod for each node, owned by it;
each pod's container runs as a process of this machine, with the environment that
Trainer's torch plugin and the runtime's `envFrom` would give it. Lines go to the
pod's log, the end of the processes to the job's status. Pods that are deleted
get SIGTERM, and go when their process has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from cluster.api import ClusterApi
from cluster.objects import Failure, Kind, Object, now

ROOT = Path(__file__).parents[2]
GRACE = 60.0  # seconds between a pod's SIGTERM and SIGKILL; few are deaf
WEBHOOK = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the '


@dataclass
class Pod:
    """A running container: its process, and the thread that reads its output."""

    name: str
    job: str
    process: subprocess.Popen[bytes]
    reader: threading.Thread
    reported: bool = False
    ends: float | None = None
    """When SIGKILL follows; None while nobody has asked it to end."""


@dataclass
class TrainerController:
    """Plays controller and kubelet on one thread until the block is left.

    Args:
        api: whose objects it acts upon.
        environ: what the runtime's `envFrom` gives the container.
        program: runs instead of the container's own program, with its last
            argument (the request); () = the container's command itself.
        schedules: whether there is room for pods; if not, they stay Pending.
        token: file of a token with which containers may report their progress;
            None = the gate `TrainJobStatus` is closed.
    """

    api: ClusterApi
    environ: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    schedules: bool = True
    token: Path | None = None
    pods: list[Pod] = field(default_factory=list)
    started: int = 0
    """Containers started so far."""

    def __enter__(self) -> Self:
        self.api.admission.append(self._runtime_exists)
        self.api.objects.lingering = self._has_process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for pod in self.pods:
            self._signal(pod, signal.SIGKILL)
            pod.process.wait()
            pod.reader.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self.api.objects.changed:
                self.api.objects.changed.wait(0.05)
            for job in self.api.list("trainjobs"):
                with suppress(Failure, KeyError):
                    self._reconcile(job)
            self._look_after_pods()

    def _runtime_exists(self, verb: str, plural: str, body: Object) -> str | None:
        if plural != "trainjobs" or verb != "create":
            return None
        name = body["spec"]["runtimeRef"]["name"]
        with suppress(KeyError):
            self.api.get("trainingruntimes", name)
            return None
        return (
            f'{WEBHOOK}request: spec.runtimeRef: Invalid value: {{"name":"{name}"}}: '
            f'TrainingRuntime.trainer.kubeflow.org "{name}" not found: specified '
            "trainingRuntime must be created before the TrainJob is created"
        )

    def _reconcile(self, job: Object) -> None:
        name, meta = job["metadata"]["name"], job["metadata"]
        made = [p for p in self.api.list("pods") if _belongs(p, name)]
        if meta.get("deletionTimestamp") or _is(job, "Complete") or _is(job, "Failed"):
            return
        if job["spec"].get("suspend"):
            self._condition(job, "Suspended", "True", "TrainJob is suspended")
            for pod in made:
                self.api.delete("pods", pod["metadata"]["name"])
        elif made:
            self._finish(job, made)
        else:
            if _is(job, "Suspended"):
                self._condition(job, "Suspended", "False", "TrainJob is resumed")
            self._make_pods(job)

    def _make_pods(self, job: Object) -> None:
        meta = job["metadata"]
        owner = _owner(job)
        with suppress(Failure):
            self.api.add("jobsets", meta["name"], owners=[owner], spec={})
        jobset = self.api.get("jobsets", meta["name"])
        port = _free_port()
        nodes = job["spec"]["trainer"].get("numNodes", 1)
        for rank in range(nodes):
            name = f"{meta['name']}-node-0-{rank}-{os.urandom(3).hex()[:5]}"
            labels = {
                "jobset.sigs.k8s.io/jobset-name": meta["name"],
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            self.api.add(
                "pods",
                name,
                labels=labels,
                owners=[_owner(jobset)],
                spec={"containers": [{"name": "node"}]},
                status={"phase": "Pending"},
            )
            if self.schedules:
                self._start(job, name, rank, port)
            else:
                self._unschedulable(name)

    def _unschedulable(self, name: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        }
        self.api.patch("pods", name, {"status": {"conditions": [condition]}})

    def _start(self, job: Object, name: str, rank: int, port: int) -> None:
        trainer = job["spec"]["trainer"]
        command = [*trainer["command"], *trainer["args"]]
        if self.program:
            command = [*self.program, command[-1]]
        if command[0] == "python":
            command[0] = sys.executable  # that of the image
        process = subprocess.Popen(
            command,
            env=self._environ(job, name, rank, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(process.stdout, name), name=f"log of {name}"
        )
        self.pods.append(Pod(name, job["metadata"]["name"], process, reader))
        self.started += 1
        self.api.patch("pods", name, {"status": {"phase": "Running"}})
        reader.start()

    def _environ(self, job: Object, name: str, rank: int, port: int) -> dict[str, str]:
        trainer = job["spec"]["trainer"]
        image = {k: os.environ[k] for k in ("PATH", "TMPDIR") if k in os.environ}
        if self.token:
            path = f"/namespaces/{self.api.namespace}/trainjobs/"
            own = path + job["metadata"]["name"] + "/status"
            root = f"{self.api.url}/apis/trainer.kubeflow.org/v1alpha1"
            image["KUBEFLOW_TRAINER_SERVER_URL"] = root + own
            image["KUBEFLOW_TRAINER_SERVER_TOKEN"] = str(self.token)
        return {
            **image,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **self.environ,
            **{e["name"]: e["value"] for e in trainer.get("env", [])},
            "HOSTNAME": name,
            "PET_NNODES": str(trainer.get("numNodes", 1)),
            "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", 1)),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }

    def _read(self, output: IO[bytes], name: str) -> None:
        log = self.api.log(name)
        with output:
            for line in output:
                log.write(line.decode(errors="replace").rstrip("\n"))
        log.close()

    def _look_after_pods(self) -> None:
        for pod in self.pods:
            if pod.reported:
                continue
            if pod.process.poll() is not None:
                pod.reader.join()
                self._report(pod)
            elif self._is_going(pod) and pod.ends is None:
                self._signal(pod, signal.SIGTERM)
                pod.ends = time.monotonic() + GRACE
            elif pod.ends is not None and time.monotonic() > pod.ends:
                self._signal(pod, signal.SIGKILL)

    def _report(self, pod: Pod) -> None:
        pod.reported = True
        self._signal(pod, signal.SIGKILL)  # what it may have left behind
        code = pod.process.returncode
        ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
        }
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "node", "state": {"terminated": ended}}],
        }
        going = self._is_going(pod)
        with suppress(Failure):
            self.api.patch("pods", pod.name, {"status": status})
        if going:
            self.api.objects.remove(self.api.kind("pods"), self.api.namespace, pod.name)

    def _is_going(self, pod: Pod) -> bool:
        try:
            found = self.api.get("pods", pod.name)
        except KeyError:
            return True
        return "deletionTimestamp" in found["metadata"]

    def _has_process(self, kind: Kind, found: Object) -> bool:
        name = found["metadata"]["name"]
        return kind.plural == "pods" and any(
            pod.name == name and not pod.reported for pod in self.pods
        )

    def _finish(self, job: Object, made: list[Object]) -> None:
        phases = {pod["status"]["phase"] for pod in made}
        nodes = job["spec"]["trainer"].get("numNodes", 1)
        if "Failed" in phases:
            self._condition(job, "Failed", "True", "jobset failed due to failed jobs")
            for pod in self.pods:
                if pod.job == job["metadata"]["name"]:
                    self._signal(pod, signal.SIGKILL)
        elif phases == {"Succeeded"} and len(made) == nodes:
            self._condition(job, "Complete", "True", "jobset completed successfully")

    def _condition(self, job: Object, kind: str, status: str, message: str) -> None:
        held = job.get("status", {}).get("conditions", [])
        new = {
            "type": kind,
            "status": status,
            "reason": f"{kind}{status}",
            "message": message,
            "lastTransitionTime": now(),
        }
        if any((c["type"], c["status"]) == (kind, status) for c in held):
            return
        others = [c for c in held if c["type"] != kind]
        body = {"status": {"conditions": [*others, new]}}
        self.api.patch("trainjobs", job["metadata"]["name"], body)

    def _signal(self, pod: Pod, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pod.process.pid, number)


def _belongs(pod: Object, job: str) -> bool:
    labels: dict[str, Any] = pod["metadata"].get("labels", {})
    return labels.get("jobset.sigs.k8s.io/jobset-name") == job


def _is(job: Object, kind: str) -> bool:
    held = job.get("status", {}).get("conditions", [])
    return any((c["type"], c["status"]) == (kind, "True") for c in held)


def _owner(found: Object) -> Object:
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": found["metadata"]["name"],
        "uid": found["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
