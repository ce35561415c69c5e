"""KFP signatures of the five stages: one component, one image, no logic.

A component only unpacks its artifacts' paths and calls the stage's `run()`
inside `execution.stage`, the frame that turns an error into one sentence. The
body's source travels inside the compiled pipeline, so its imports are inside.
"""

from __future__ import annotations

from pathlib import Path

from safescale_ammt import __version__

# No component installs KFP (`install_kfp_package=False`): the images hold it, and a pod
# that ran pip at its start would need the network and could get another version.
STAGES = (
    "prepare_data",
    "search_architecture",
    "train_agents",
    "evaluate_safety",
    "register_model",
)
"""Stages with an image of their own, in the order of the graph. The exit task is none
of them: it runs in the gate's image."""
SPARK = "spark"
"""The image of Spark's server and executors, which prepare_data runs in where they do
the work: one build of Spark on both ends."""
WITH_TORCH = "search_architecture"
"""The image that evaluate_safety runs in where a battery follows slopes: torch and this
library, and no Kubernetes client."""
REUSABLE = STAGES[:-1]
"""Stages whose result follows from inputs and code alone; the gate speaks anew."""
IMAGE_PREFIX = "safescale-ammt"
"""Registry path of the images; `safescale compile --image-prefix` replaces it."""
LOCK = Path("images/lock.json")
"""Where `make images` writes the lock of images, relative to the repository."""
LOCK_SCHEMA = 1
"""Version of the lock's form; a reader refuses any other."""


def image(stage: str) -> str:
    """Returns the fixed image reference that a stage is compiled with."""
    # A version and no digest: the compiled pipeline is compared byte by byte in the
    # tests, and `safescale compile --images` pins digests at a release.
    return f"{IMAGE_PREFIX}/{stage}:{__version__}"
