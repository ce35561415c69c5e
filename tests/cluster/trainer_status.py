"""What Kubeflow Trainer's validation takes of a report of progress."""

from __future__ import annotations

from cluster.objects import Object


def is_valid(status: Object) -> bool:
    """Says whether the TrainJob's CRD of Trainer 2.3.0 takes this `trainerStatus`."""
    metrics = status.get("metrics", [])
    texts = [m[key] for m in metrics for key in ("name", "value")]
    return (
        0 <= status["progressPercentage"] <= 100
        and 0 <= status.get("estimatedRemainingSeconds", 0) < 2**31
        and len(metrics) <= 256
        and all(1 <= len(text) <= 64 for text in texts)
    )
