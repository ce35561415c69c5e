"""What spark-operator 2.5.2 writes about a SparkConnect.

internal/controller/sparkconnect/reconciler.go: createOrUpdateServerPod sets state and
condition by the pod's readiness and quotes the pod's message, which is mostly empty;
updateExecutorStatus counts pods by phase. A SparkConnect of a namespace that it does
not watch has no status at all.
"""

from __future__ import annotations

from typing import Any


def status(*, ready: bool, message: str = "", **executors: int) -> dict[str, Any]:
    """Returns the status of a SparkConnect whose server's pod is there."""
    state = "Ready" if ready else "NotReady"
    said = "Server pod is ready" if ready else f"Server pod is not ready: {message}"
    return {
        "conditions": [
            {
                "type": "ServerPodReady",
                "status": str(ready),
                "reason": f"ServerPod{state}",
                "message": said,
                "lastTransitionTime": "2026-11-30T00:00:00Z",
            }
        ],
        "state": state,
        "server": {
            "podName": "safescale-spark-server",
            "podIp": "10.244.0.7",
            "serviceName": "safescale-spark-server",
        },
        "executors": executors,
        "startTime": "2026-11-30T00:00:00Z",
        "lastUpdateTime": "2026-11-30T00:01:00Z",
    }
