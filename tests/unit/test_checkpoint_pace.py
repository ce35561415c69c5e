"""Pace: checkpoints by rounds or by the clock, and what they may cost."""

from __future__ import annotations

from safescale_ammt.training.checkpoint_pace import BETWEEN, LEAST, SHARE, Pace


def test_a_number_of_rounds_is_kept_to_whatever_the_clock_says() -> None:
    pace = Pace(3, 0.0)
    found = []
    for round_ in range(1, 10):
        due = pace.due(0.001 * round_)
        found.append(due)
        if due:
            pace.begun()
            pace.ended(0.001 * round_, 9.0, 9.0, failed=False)
    assert found == [False, False, True] * 3


def test_what_failed_slowly_is_not_tried_every_few_rounds() -> None:
    pace = Pace(1, 0.0)
    assert pace.due(1.0)
    pace.ended(90.0, 0.1, 90.0, failed=True)
    assert not pace.due(90.0 + BETWEEN * 90.0 - 1)
    assert pace.due(90.0 + BETWEEN * 90.0)


def test_by_the_clock_checkpoints_take_a_fiftieth_of_the_time() -> None:
    pace, now, taken, cost = Pace(0, 0.0), 0.0, 0, 0.3
    while now < 1000.0:
        now += 0.05
        if pace.due(now):
            pace.begun()
            now += cost
            taken += 1
            pace.ended(now, cost, cost, failed=False)
    share = taken * cost / now
    assert 0.9 / SHARE < share <= 1 / SHARE


def test_the_first_one_waits_and_none_follows_one_that_is_on_its_way() -> None:
    pace = Pace(0, 0.0)
    assert not pace.due(LEAST - 0.01)
    assert pace.due(LEAST)
    pace.begun()
    assert not pace.due(1e9)
    pace.ended(100.0, 0.0, 50.0, failed=False)
    assert not pace.due(100.0 + BETWEEN * 50.0 - 1)
    assert pace.due(100.0 + BETWEEN * 50.0)
