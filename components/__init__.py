"""KFP signatures of the five stages: one component, one image, no logic.

A component only unpacks its artifacts' paths and calls the stage's `run()`
inside `execution.stage`, the frame that turns an error into one sentence. The
body's source travels inside the compiled pipeline, so its imports are inside.
"""

from __future__ import annotations

from safescale_ammt import __version__

IMAGE_PREFIX = "safescale-ammt"
"""Registry path of the images; `safescale compile --image-prefix` replaces it."""


def image(stage: str) -> str:
    """Returns the fixed image reference that a stage is compiled with."""
    return f"{IMAGE_PREFIX}/{stage}:{__version__}"
