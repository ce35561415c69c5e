"""How long a judgement takes tells nothing of what it found."""

from __future__ import annotations

import pytest

from safescale_ammt.releasing.even_time import STEP, even_time


class Clock:
    """A clock that work and pauses move on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.mark.parametrize("work", [0.01, 1.3, STEP - 0.01])
@pytest.mark.parametrize("fails", [False, True])
def test_work_of_any_length_ends_at_a_whole_step(work: float, *, fails: bool) -> None:
    clock = Clock()
    try:
        with even_time(clock, clock.wait):
            clock.wait(work)
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert clock.now == pytest.approx(100 + STEP)


def test_longer_work_takes_more_steps() -> None:
    clock = Clock()
    with even_time(clock, clock.wait):
        clock.wait(2.5 * STEP)
    assert clock.now == pytest.approx(100 + 3 * STEP)
