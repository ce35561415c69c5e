"""Kubeflow Trainer 2.3 and a kubelet, as far as a TrainJob notices them.

A job that is not suspended gets a snapshot of its runtime, a JobSet, a Job and one
pod for each node, each owned by the one before; each pod's container runs as a
process of this machine, with the environment that Trainer's torch plugin and the
runtime's `envFrom` would give it. Lines go to the pod's log, the end of the
processes to the job's status.

As recorded on a real cluster, and as Trainer's source says (kubeflow/trainer 2.3.0,
pkg/controller/trainjob_controller.go, pkg/runtime/framework/plugins/jobset):

- A job that runs has no condition at all; `jobsStatus` counts Jobs, not pods.
- Whoever deletes a job with Foreground propagation gets new pods of it while it
  goes, unless it is complete: the controller never looks at `deletionTimestamp`.
- A pod that is deleted goes on through its grace period; its Job, and with it the
  job, counts as failed at once. So do pods of other nodes once one has failed.
- What cannot be made is an event of `events.k8s.io`, which core shows without
  `lastTimestamp`.
- A quota counts finished and failed jobs until they are deleted.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from cluster.api import ClusterApi
from cluster.objects import Failure, Kind, Object, now

ROOT = Path(__file__).parents[2]
GRACE = 60.0  # seconds between a pod's SIGTERM and SIGKILL; few are deaf
REFILLS = 2
"""Times that new pods come of a job in foreground deletion (seen: up to three)."""
WEBHOOK = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the '


@dataclass
class Pod:
    """A running container: its process, and the thread that reads its output."""

    name: str
    job: str
    jobset: str
    """Uid of its JobSet."""
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
        fails: why nothing can be made for a job, "" = it can.
    """

    api: ClusterApi
    environ: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    schedules: bool = True
    token: Path | None = None
    fails: str = ""
    pods: list[Pod] = field(default_factory=list)
    started: int = 0
    """Containers started so far."""

    def __enter__(self) -> Self:
        self._refills: dict[str, int] = {}
        self._filling = ""
        self._lost: set[str] = set()
        self.api.admission += [self._runtime_exists, self._within_quota]
        self.api.objects.lingering = self._stays
        self.api.objects.refilled = self._is_refilled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.api.objects.refilled = lambda *_: False
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

    def _within_quota(self, verb: str, plural: str, body: Object) -> str | None:
        if plural != "trainjobs" or verb != "create":
            return None
        count = "count/trainjobs.trainer.kubeflow.org"
        used = len(self.api.list("trainjobs"))
        for quota in self.api.list("resourcequotas"):
            hard = quota["spec"]["hard"].get(count)
            if hard is not None and used >= int(hard):
                return (
                    f'trainjobs.trainer.kubeflow.org "{body["metadata"]["name"]}" is '
                    f"forbidden: exceeded quota: {quota['metadata']['name']}, "
                    f"requested: {count}=1, used: {count}={used}, limited: "
                    f"{count}={hard}"
                )
        return None

    def _reconcile(self, job: Object) -> None:
        name, going = job["metadata"]["name"], _is_deleted(job)
        if _is(job, "Complete") or (_is(job, "Failed") and not going):
            return
        if self.fails:
            self._creation_failed(job)
            return
        jobset: Object | None = None
        with suppress(KeyError):
            jobset = self.api.get("jobsets", name)
        if job["spec"].get("suspend"):
            self._suspend(job)
        elif jobset is None:
            self._make(job)
        elif not going and _owner(job)["uid"] == _owners(jobset):
            self._finish(job, jobset)

    def _suspend(self, job: Object) -> None:
        said = ("Suspended", "TrainJob is suspended")
        self._status(job, {"suspended": 1}, ("Suspended", "True", *said))
        for kind in ("jobsets", "jobs"):
            for found in self.api.list(kind):
                if found["metadata"]["name"].startswith(job["metadata"]["name"]):
                    self.api.delete(kind, found["metadata"]["name"])

    def _creation_failed(self, job: Object) -> None:
        """As `events.k8s.io` stores it, and core/v1 reads it."""
        meta = job["metadata"]
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with suppress(Failure):
            self.api.add(
                "events",
                f"{meta['name']}.{meta['uid'][:8]}",
                type="Warning",
                reason="TrainJobResourcesCreationFailed",
                action="Reconciling",
                message=f"TrainJob resources reconciliation failed: {self.fails}",
                eventTime=stamp,
                firstTimestamp=None,
                lastTimestamp=None,
                reportingComponent="trainer.kubeflow.org/trainjob-controller",
                involvedObject={
                    "kind": "TrainJob",
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            )

    def _make(self, job: Object) -> None:
        """Makes JobSet, Job and pods; of a job that is going, they go at once."""
        name, going = job["metadata"]["name"], _is_deleted(job)
        if going:
            if self._refills.setdefault(job["metadata"]["uid"], 0) >= REFILLS:
                return
            self._refills[job["metadata"]["uid"]] += 1
            self._filling = name
        snapshot = f"{name}-runtime-snapshot"
        with suppress(Failure):
            self.api.add("configmaps", snapshot, owners=[_owner(job)], data={})
        jobset = self.api.add("jobsets", name, owners=[_owner(job)], spec={})
        child = self.api.add(
            "jobs", f"{name}-node-0", owners=[_owner(jobset)], spec={"backoffLimit": 0}
        )
        # JobSet counts before there is anything to count.
        self._status(job, {}, None)
        counts = {"active": 1}
        resumed = ("Suspended", "False", "Resumed", "TrainJob is resumed")
        self._status(job, counts, resumed if _is(job, "Suspended") else None)
        self._make_pods(job, jobset, child)
        if going:
            self._filling = ""
            kind = self.api.kind("jobsets")
            self.api.objects.remove(kind, self.api.namespace, name)

    def _make_pods(self, job: Object, jobset: Object, child: Object) -> None:
        meta = job["metadata"]
        port = _free_port()
        for rank in range(job["spec"]["trainer"].get("numNodes", 1)):
            name = f"{meta['name']}-node-0-{rank}-{os.urandom(3).hex()[:5]}"
            labels = {
                "batch.kubernetes.io/job-name": child["metadata"]["name"],
                "jobset.sigs.k8s.io/jobset-name": meta["name"],
                "jobset.sigs.k8s.io/jobset-uid": jobset["metadata"]["uid"],
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            self.api.add(
                "pods",
                name,
                labels=labels,
                owners=[_owner(child)],
                spec={
                    "containers": [{"name": "node"}],
                    "terminationGracePeriodSeconds": 120,
                },
                status={"phase": "Pending"},
            )
            if self.schedules:
                self._start(job, jobset, name, rank, port)
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

    def _start(
        self, job: Object, jobset: Object, name: str, rank: int, port: int
    ) -> None:
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
        uid = jobset["metadata"]["uid"]
        self.pods.append(Pod(name, job["metadata"]["name"], uid, process, reader))
        self.started += 1
        # First of all: it closes the pipe, and the pod may be gone by now.
        reader.start()
        self.api.patch("pods", name, {"status": {"phase": "Running"}})

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
                self._lost.add(pod.jobset)
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

    def _stays(self, kind: Kind, found: Object) -> bool:
        """Pods stay while their process runs, a JobSet while it is being filled."""
        name = found["metadata"]["name"]
        if kind.plural in ("jobsets", "jobs"):
            return bool(self._filling) and name.startswith(self._filling)
        return kind.plural == "pods" and any(
            pod.name == name and not pod.reported for pod in self.pods
        )

    def _is_refilled(self, kind: Kind, found: Object) -> bool:
        uid = found["metadata"]["uid"]
        return (
            kind.plural == "trainjobs"
            and not _is(found, "Complete")
            and not found["spec"].get("suspend")
            and not self.fails
            and (
                self._refills.get(uid, 0) < REFILLS
                or found["metadata"]["name"] == self._filling
            )
        )

    def _finish(self, job: Object, jobset: Object) -> None:
        uid = jobset["metadata"]["uid"]
        label = "jobset.sigs.k8s.io/jobset-uid"
        pods = self.api.list("pods")
        made = [p for p in pods if p["metadata"].get("labels", {}).get(label) == uid]
        phases = {pod["status"]["phase"] for pod in made}
        if "Failed" in phases or uid in self._lost:
            child = f"{job['metadata']['name']}-node-0"
            message = (
                "jobset failed due to reaching max number of restarts (first failed "
                f"job: {child})"
            )
            failed = ("Failed", "True", "ReachedMaxRestarts", message)
            self._status(job, {"failed": 1}, failed)
            for pod in made:
                if pod["status"]["phase"] in ("Pending", "Running"):
                    self.api.delete("pods", pod["metadata"]["name"])
        elif made and phases == {"Succeeded"}:
            message = "jobset completed successfully"
            done = ("Complete", "True", "AllJobsCompleted", message)
            self._status(job, {"succeeded": 1}, done)
        elif phases == {"Running"}:
            self._status(job, {"active": 1, "ready": 1}, None)

    def _status(
        self,
        job: Object,
        counts: Mapping[str, int],
        condition: tuple[str, str, str, str] | None,
    ) -> None:
        """Writes what a Job's count, and a condition, say of a job."""
        zero = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
        status: Object = {"jobsStatus": [{"name": "node", **zero, **counts}]}
        held = job.get("status", {}).get("conditions", [])
        if condition and not any(
            (c["type"], c["status"]) == condition[:2] for c in held
        ):
            keys = ("type", "status", "reason", "message")
            new = dict(zip(keys, condition, strict=True))
            others = [c for c in held if c["type"] != new["type"]]
            status["conditions"] = [*others, {**new, "lastTransitionTime": now()}]
        self.api.patch("trainjobs", job["metadata"]["name"], {"status": status})

    def _signal(self, pod: Pod, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pod.process.pid, number)


def _is_deleted(found: Object) -> bool:
    return "deletionTimestamp" in found["metadata"]


def _owners(found: Object) -> str:
    """Returns the uid of the one owner."""
    (owner,) = found["metadata"]["ownerReferences"]
    return str(owner["uid"])


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
