"""Starts an executor of Spark as Kubernetes' backend asks for one.

Spark (4.3.0) gives a pod the argument `executor` and the rest by variables, for its own
image's entry point (resource-managers/kubernetes/docker/.../entrypoint.sh), which no
package of PySpark has. Any other command runs as it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

_BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_OPTIONS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}
_JAVA_OPTION = re.compile(r"SPARK_JAVA_OPT_(\d+)")


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Returns what to run.

    Args:
        arguments: of the container.
        environ: of the container.

    Raises:
        KeyError: a variable that Spark gives each executor is not there.
    """
    if list(arguments) != ["executor"]:
        return list(arguments)
    home = environ.get("JAVA_HOME", "")
    matches = filter(None, map(_JAVA_OPTION.fullmatch, environ))
    # By number: Spark's own order, in which a later option wins.
    options = sorted((int(match[1]), environ[match[0]]) for match in matches)
    heap = environ["SPARK_EXECUTOR_MEMORY"]
    extra = environ.get("SPARK_CLASSPATH", "")
    jars = f"{environ['SPARK_HOME']}/jars/*"
    return [
        f"{home}/bin/java" if home else "java",
        *(option for _, option in options),
        f"-Xms{heap}",
        f"-Xmx{heap}",
        "-cp",
        os.pathsep.join(filter(None, (extra, jars))),
        _BACKEND,
        *(w for name, key in _OPTIONS.items() for w in (name, environ[key])),
    ]


if __name__ == "__main__":
    started = command(sys.argv[1:], os.environ)
    os.execvp(started[0], started)  # noqa: S606 - the container's own process
