"""When schedules fire: beside Kubeflow's own controller, on a clock of the test's."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from kfp_api.server import KfpApi
from kfp_api.state import RUNNING, SUCCEEDED, Scene
from patience import PATIENCE

from pipelines.kubeflow import schedule
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import KubeflowRequest, RunSpec, prepare
from pipelines.kubeflow.recurring import list_recurring
from pipelines.kubeflow.session import Session
from pipelines.kubeflow.timing import Clock, Timing
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.retry import RetryPolicy

ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"
NAME = "loans"
SUNDAY = datetime(2026, 11, 29, 12, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 3, tzinfo=UTC)
WEEK, DAY, HOUR = timedelta(days=7), timedelta(days=1), timedelta(hours=1)
MONDAYS = "0 0 3 * * 1"


@pytest.fixture(scope="module")
def prepared() -> dict[str, RunSpec]:
    """Two orders that differ, and one that spends no sealed row."""
    more = {"one": (), "two": ("training.seed=2",), "try": ("safety.rehearse=true",)}
    return {
        name: prepare(
            KubeflowRequest(
                *(ADULT, None, overrides),
                store="s3://team/data",
                cache=False,
                recurring=True,
            )
        )
        for name, overrides in more.items()
    }


class World:
    """A Kubeflow whose clock goes on while somebody waits, and its controller looks.

    It looks every 30 s, and 10 s after an order.
    """

    def __init__(self, api: KfpApi, prepared: dict[str, RunSpec]) -> None:
        self.api, self.prepared, self.time = api, prepared, SUNDAY
        api.world.clock = lambda: self.time
        self.clock = Clock(lambda: self.time, lambda s: self.go(timedelta(seconds=s)))
        self.kubeflow = Kubeflow(Session(api.url), RetryPolicy(total=PATIENCE))
        self.orders, self.looks_at = 0, SUNDAY
        self.length = timedelta(minutes=3)

    def go(self, span: timedelta) -> None:
        end = self.time + span
        while self.time < end:
            # Far from every look nothing happens that a longer step would miss.
            step = min(timedelta(seconds=5), end - self.time)
            self.time += step
            self._end_runs()
            with self.api.world.lock:
                changes = len(self.api.world.history)
                if changes != self.orders:
                    self.orders = changes
                    self.looks_at = min(
                        self.looks_at, self.time + timedelta(seconds=10)
                    )
                if self.time >= self.looks_at:
                    self.api.world.look(self.time)
                    self.looks_at = self.time + timedelta(seconds=30)

    def jump(self, moment: datetime) -> None:
        """Lets a time pass in which nobody looks, but for its last two minutes."""
        self.time = max(self.time, moment - timedelta(minutes=2))
        self.looks_at = self.time
        self.go(moment - self.time)

    def _end_runs(self) -> None:
        for run in self.api.world.runs.values():
            over = run.scheduled_at and self.time - run.scheduled_at > self.length
            if over and run.run_id not in self.api.world.killed:
                run.state = SUCCEEDED

    def roll(self, timing: Timing, what: str = "one", **more: float | str) -> str:
        return schedule.roll(
            self.kubeflow, NAME, self.prepared[what], timing, clock=self.clock, **more
        )

    def pause(self) -> str:
        return schedule.pause(self.kubeflow, NAME, self.clock)

    def resume(self) -> str:
        return schedule.resume(self.kubeflow, NAME, clock=self.clock)

    @property
    def firing(self) -> list[str]:
        return self.api.world.enabled()

    @property
    def fired(self) -> list[datetime]:
        """The times for which runs were started, one for each run."""
        return sorted(r.scheduled_at for r in self.api.world.runs.values())

    def head(self) -> object:
        return self.api.world.recurring[self.firing[0]]


@pytest.fixture
def world(prepared):
    with KfpApi() as api:
        api.world.script = (Scene(RUNNING),)
        yield World(api, prepared)


CRON, EVERY = Timing(cron=MONDAYS), Timing(every=int(WEEK.total_seconds()))


def test_a_week_s_schedule_fires_once_a_week(world):
    world.roll(CRON)
    for week in range(3):
        world.jump(MONDAY + week * WEEK + HOUR)
    assert world.fired == [MONDAY, MONDAY + WEEK, MONDAY + 2 * WEEK]


@pytest.mark.parametrize("seconds", range(-25, 100, 9))
@pytest.mark.parametrize("timing", [CRON, EVERY], ids=["cron", "every"])
def test_a_roll_beside_a_time_loses_none_and_doubles_none(world, timing, seconds):
    tick = MONDAY if timing.cron else SUNDAY + WEEK
    world.roll(timing)
    world.jump(tick + timedelta(seconds=seconds))
    world.roll(timing, "two")
    assert len(world.firing) == 1
    world.go(timedelta(minutes=6))
    assert world.fired == [tick]
    world.jump(tick + WEEK + timedelta(minutes=2))
    assert world.fired == [tick, tick + WEEK]


def test_a_roll_of_a_long_interval_does_not_begin_it_anew(world):
    world.roll(EVERY)
    for day in range(1, 7):
        world.jump(SUNDAY + day * DAY)
        said = world.roll(EVERY, "two" if day % 2 else "one")
        assert "next at 2026-12-06 12:00:00 UTC" in said
    world.jump(SUNDAY + WEEK + timedelta(minutes=1))
    assert world.fired == [SUNDAY + WEEK]


@pytest.mark.parametrize("timing", [CRON, EVERY], ids=["cron", "every"])
def test_what_was_missed_in_a_pause_is_not_made_up_for(world, timing):
    world.roll(timing)
    assert "is paused" in world.pause()
    assert not world.firing
    world.jump(SUNDAY + 3 * WEEK + 2 * DAY)
    world.resume()
    world.go(timedelta(minutes=5))
    assert world.fired == []
    tick = MONDAY + 4 * WEEK if timing.cron else SUNDAY + 4 * WEEK
    world.jump(tick - timedelta(seconds=10))
    assert world.fired == []
    world.go(timedelta(minutes=1))
    assert world.fired == [tick]


def test_enabling_the_old_one_would_have_made_up_for_one(world):
    """The controller of these tests does what makes a new one necessary."""
    world.roll(CRON)
    (old,) = world.firing
    world.api.world.switch(old, "DISABLE")
    world.jump(SUNDAY + 3 * WEEK + 2 * DAY)
    world.api.world.switch(old, "ENABLE")
    world.go(timedelta(minutes=1))
    assert world.fired == [MONDAY + 3 * WEEK]


@pytest.mark.parametrize("timing", [CRON, EVERY], ids=["cron", "every"])
def test_a_start_that_is_past_starts_nothing(world, timing):
    world.roll(Timing(timing.cron, timing.every, start=MONDAY - 10 * WEEK))
    world.go(timedelta(minutes=5))
    assert world.fired == []
    # An interval is counted from its start, past or not.
    world.jump(MONDAY + timedelta(minutes=1))
    assert world.fired == [MONDAY]


@pytest.mark.parametrize("timing", [CRON, EVERY], ids=["cron", "every"])
def test_what_starts_in_the_future_fires_at_its_start(world, timing):
    start = MONDAY + 2 * WEEK
    world.roll(Timing(timing.cron, timing.every, start=start))
    world.jump(start - timedelta(seconds=5))
    assert world.fired == []
    # A roll, a pause and a resume before it change nothing about that.
    world.roll(Timing(timing.cron, timing.every, start=start), "two")
    world.pause()
    world.resume()
    world.go(timedelta(minutes=1))
    assert world.fired in ([start], [])
    world.jump(start + WEEK + timedelta(minutes=1))
    assert world.fired[-1] == start + WEEK


def test_an_interval_that_is_longer_than_the_schedule_is_refused():
    week = int(WEEK.total_seconds())
    with pytest.raises(InputError, match="Every 604800 s does not come before --end"):
        Timing(every=week, end=SUNDAY + DAY).check(SUNDAY)
    Timing(every=week, start=SUNDAY + HOUR, end=SUNDAY + DAY).check(SUNDAY)
    # In which zone the controller reads an expression is not known here.
    Timing(cron=MONDAYS, end=MONDAY - HOUR).check(SUNDAY)
    with pytest.raises(InputError, match="does not come before --end"):
        Timing(cron="0 0 3 * * 3", end=MONDAY).check(SUNDAY)


def test_a_roll_with_catch_up_goes_on_after_the_last_run(world):
    timing = Timing(cron=MONDAYS, catch_up=True)
    world.roll(timing)
    world.jump(MONDAY + timedelta(minutes=1))
    world.pause()
    world.jump(MONDAY + 2 * WEEK + DAY)
    world.resume()
    world.go(timedelta(minutes=10))
    assert world.fired == [MONDAY, MONDAY + WEEK, MONDAY + 2 * WEEK]


def test_a_status_that_was_forgotten_repeats_a_run_whose_workflow_is_gone(world):
    """The controller of these tests forgets as the real one does."""
    world.length = timedelta(0)
    world.roll(CRON)
    world.jump(MONDAY - timedelta(minutes=1))
    (run,) = world.api.world.look(MONDAY)
    name = run.display_name
    assert name.startswith(f"sch-{run.recurring_run_id}-1-")
    world.api.world.look(MONDAY + timedelta(seconds=30))  # it runs: no second one
    run.state = SUCCEEDED
    world.api.world.forgotten.add(name)
    world.api.world.look(MONDAY + timedelta(seconds=60))
    assert [r.display_name for r in world.api.world.runs.values()] == [name, name]


@pytest.mark.parametrize("stale", [(0.0, 0.4), (0.05, 2.0)])
def test_where_kubeflow_says_what_was_so_before_one_schedule_fires(world, stale):
    world.api.world.stale = stale
    world.clock = Clock(world.clock.now, lambda _: threading.Event().wait(0.3))
    for seconds in (3600, 7200, 10800, 14400):
        # Each roll comes while the one before it is still listed as off.
        world.roll(Timing(every=seconds))
        assert len(world.firing) == 1
        assert world.head().trigger.periodic_schedule.interval_second == str(seconds)
    world.pause()
    assert not world.firing


def test_three_at_once_leave_one_that_fires_whatever_kubeflow_says(prepared):
    for _ in range(4):
        with KfpApi() as api:
            api.world.stale = (0.05, 0.4)
            worlds = [World(api, prepared) for _ in range(3)]
            for world in worlds:
                now = world.clock.now
                world.clock = Clock(now, lambda _: threading.Event().wait(0.1))
            said: list[str] = []
            threads = [
                threading.Thread(target=_call, args=(world, hours, said))
                for hours, world in enumerate(worlds, start=1)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (head,) = api.world.enabled()
            assert head == list_recurring(worlds[0].kubeflow, NAME)[-1].id
            assert len(said) == 3


def _call(world: World, hours: int, said: list[str]) -> None:
    try:
        said.append(world.roll(Timing(every=3600 * hours)))
    except SafescaleError as error:
        said.append(str(error))


def test_a_pause_survives_every_roll_until_somebody_resumes(world):
    world.roll(CRON)
    world.pause()
    assert "stays paused" in world.roll(CRON)
    said = world.roll(EVERY, "two")
    assert "is rolled, in place of no. 2, and stays paused" in said
    assert "stays paused" in world.roll(EVERY, "two")
    assert not world.firing
    world.resume()
    assert world.head().trigger.periodic_schedule is not None
    assert "is unchanged" in world.roll(EVERY, "two")
    assert len(world.firing) == 1


def test_what_was_switched_off_in_kubeflow_s_pages_stays_off(world):
    world.roll(CRON)
    world.api.world.switch(*world.firing, "DISABLE")
    assert "somebody switched it off in Kubeflow" in world.roll(CRON)
    assert "stays paused" in world.roll(CRON, "two")
    assert not world.firing
    world.resume()
    assert len(world.firing) == 1


def test_a_run_that_goes_on_keeps_the_next_from_judging_its_rows_beside_it(world):
    hourly = Timing(every=3600)
    world.length = timedelta(minutes=8)
    world.roll(hourly)
    world.jump(SUNDAY + HOUR + timedelta(minutes=2))
    assert world.fired == [SUNDAY + HOUR]
    world.roll(hourly, "two")
    # It waited for the run, and changed nothing before.
    assert world.time >= SUNDAY + HOUR + world.length
    world.go(HOUR)
    assert world.fired == [SUNDAY + HOUR, SUNDAY + 2 * HOUR]


def test_a_run_that_goes_on_for_longer_leaves_the_schedule_as_it_is(world):
    world.length = DAY
    world.roll(Timing(every=3600))
    (old,) = world.firing
    world.jump(SUNDAY + HOUR + timedelta(minutes=2))
    with pytest.raises(SafescaleError, match=r"as it was: Run .* of no. 1 goes on"):
        world.roll(Timing(every=7200), wait=60.0)
    assert world.firing == [old]
    assert len(world.api.world.recurring) == 1
    # One that fires in a week does not run beside it, nor does a rehearsal spend rows.
    assert "goes on, and does not count" in world.roll(EVERY)
    assert "goes on, and does not count" in world.roll(Timing(every=7200), "try")


def test_a_head_that_was_deleted_in_kubernetes_is_named_and_replaced(world):
    world.roll(CRON)
    (old,) = world.firing
    world.api.world.vanish(old)
    said = world.roll(CRON)
    assert f"counted as off: no. 1 (id {old})" in said
    (new,) = world.firing
    assert new != old
    assert f"no. 1 (id {old})" in world.pause()
    assert not world.firing
    assert f"no. 1 (id {old})" in world.resume()
    assert len(world.firing) == 1


def test_a_run_that_went_with_its_schedule_is_not_waited_for(world):
    world.roll(Timing(every=3600))
    world.jump(SUNDAY + HOUR + timedelta(minutes=1))
    world.api.world.vanish(*world.firing)
    ((_, run),) = world.api.world.runs.items()
    began = world.time
    for what in ("one", "two"):
        assert "counted as off: no. 1" in world.roll(Timing(every=3600), what)
    assert world.time - began < timedelta(minutes=1)
    assert run.state in {"PENDING", "RUNNING"}
    assert len(world.firing) == 1


def test_a_head_that_is_gone_is_resumed_as_a_new_one(world):
    world.roll(CRON)
    world.api.world.vanish(*world.firing)
    assert "fires" in world.resume()
    assert len(world.firing) == 1


def test_one_that_is_deleted_meanwhile_is_none(world):
    world.roll(CRON)
    (old,) = world.firing
    deleted = threading.Event()

    def sleep(_: float) -> None:
        if not deleted.is_set():
            deleted.set()
            world.api.world.delete_recurring(old, "")

    world.clock = Clock(world.clock.now, sleep)
    assert "fires" in world.roll(EVERY)
    assert len(world.firing) == 1


def test_a_head_that_is_deleted_while_it_is_looked_at_is_made_anew(world):
    world.roll(CRON)
    world.roll(EVERY)
    (old,) = world.firing

    def sleep(_: float) -> None:
        if old in world.api.world.recurring:
            world.api.world.delete_recurring(old, "")

    world.clock = Clock(world.clock.now, sleep)
    assert "in place of no. 1" in world.roll(EVERY)
    assert len(world.firing) == 1
    assert world.head().trigger.periodic_schedule is not None


def test_a_schedule_of_every_minute_is_rolled_within_minutes(world):
    world.length = timedelta(seconds=20)
    world.roll(Timing(every=60), "try")
    world.go(timedelta(minutes=10))
    began = world.time
    world.roll(Timing(cron="0 * * * * *"), "try")
    assert world.time - began < timedelta(minutes=4)
    world.go(timedelta(minutes=10))
    late = [b - a for a, b in pairwise(world.fired)]
    assert max(late) <= timedelta(minutes=2)
    assert min(late) > timedelta()


def test_what_has_ended_is_said_and_not_resumed(world):
    world.roll(Timing(cron=MONDAYS, end=MONDAY + HOUR))
    world.jump(MONDAY + 2 * DAY)
    ((_, state),) = schedule.states(world.kubeflow, world.clock)
    assert state == "ended"
    # The API goes on to call it enabled.
    assert world.head().status == "ENABLED"
    with pytest.raises(InputError, match="has ended"):
        world.resume()
    assert "has ended" in world.pause()
    world.roll(CRON)
    ((_, old), (_, new)) = schedule.states(world.kubeflow, world.clock)
    assert (old, new) == ("ended", "fires")


def test_what_was_archived_is_said_and_fires_from_another_experiment(world):
    world.roll(CRON)
    world.api.world.store(world.head().experiment_id, "ARCHIVED")
    ((_, state),) = schedule.states(world.kubeflow, world.clock)
    assert state == "archived"
    for call in (lambda: world.roll(CRON), world.resume):
        with pytest.raises(InputError, match=r"is archived, (which switches off|and)"):
            call()
    assert "fires" in world.roll(CRON, experiment="another")
    assert len(world.firing) == 1


def test_the_list_is_sorted_by_time_and_says_who_is_paused(world):
    others = ("b", "a", "c")
    for name in others:
        world.time += HOUR
        schedule.roll(
            world.kubeflow, name, world.prepared["one"], EVERY, clock=world.clock
        )
    world.time += HOUR
    schedule.roll(world.kubeflow, "b", world.prepared["two"], EVERY, clock=world.clock)
    world.time += HOUR
    schedule.pause(world.kubeflow, "b", world.clock)
    shown = schedule.states(world.kubeflow, world.clock)
    assert [(r.name, r.number, state) for r, state in shown] == [
        ("b", 1, "off"),
        ("a", 1, "fires"),
        ("c", 1, "fires"),
        ("b", 2, "off"),
        ("b", 3, "paused"),
    ]
