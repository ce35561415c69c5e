"""Probe pods of the acceptance: what a kubelet does for them, on this machine.

A pod of the test's cluster that starts Python with a line of code really runs it, with
the secrets that it names as its environment; phase and log are as a kubelet tells them.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

from cluster.api import ClusterApi
from cluster.objects import Failure, Object


class Probes:
    """Runs the probe pods of a cluster, one at a time, while the context lasts.

    Args:
        cluster: whose pods.
        environ: what a program needs to start here; the secrets' values come on top.
    """

    def __init__(self, cluster: ClusterApi, environ: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.environ = environ
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._closing.wait(0.05):
            for pod in self.cluster.list("pods"):
                command = pod["spec"]["containers"][0].get("command") or [""]
                new = "phase" not in (pod.get("status") or {})
                # A pod that only sleeps is there to be asked for.
                if new and command[0] == "python" and "sleep(500)" not in command[2]:
                    with suppress(Failure):
                        self._run(pod)

    def _run(self, pod: Object) -> None:
        name, (container, *_) = pod["metadata"]["name"], pod["spec"]["containers"]
        environ = dict(self.environ)
        for source in container.get("envFrom") or ():
            with suppress(KeyError):
                secret = self.cluster.get("secrets", source["secretRef"]["name"])
                for key, value in secret["data"].items():
                    environ[key] = base64.b64decode(value).decode()
        done = subprocess.run(
            [sys.executable, *container["command"][1:]],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log = self.cluster.log(name)
        for line in done.stdout.splitlines():
            log.write(line)
        log.close()
        phase = "Failed" if done.returncode else "Succeeded"
        self.cluster.patch("pods", name, {"status": {"phase": phase}})
