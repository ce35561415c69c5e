"""A property's examples may take as long as a busy machine takes."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=1)
@given(st.none())
def test_an_example_that_takes_long_is_no_failure(nothing: None) -> None:
    time.sleep(0.3)


def test_inputs_that_take_long_to_draw_are_none_either() -> None:
    assert HealthCheck.too_slow in settings.default.suppress_health_check
