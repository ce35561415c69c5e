"""Properties are tried without a clock: a busy machine makes no example wrong."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# By default an example of more than .2 s fails, and so do inputs that are long drawn.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture
def same_start() -> None:
    """Weights that a test draws are the same in each run of it."""
    import torch

    torch.manual_seed(0)
