"""What surrounds a training: tasks, generators, length, checkpoints, roles."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_world import (
    GAP,
    X,
    Y,
    both,
    brief,
    net,
    same,
    state,
    trained,
)
from torch import Tensor, nn

from safescale_ammt.config.roles import Role
from safescale_ammt.modules.identity import checkpoints_of, identity
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer, read_both
from safescale_ammt.training.plan import Plan, make_plan

pytestmark = pytest.mark.usefixtures("same_start")


def test_a_task_that_is_cancelled_stops_its_training() -> None:
    events: list[Any] = []
    trainer = SAFESCALEAMMTTrainer(brief(steps=100_000), log=events.append)

    async def short() -> None:
        task = asyncio.create_task(trainer.train_model(net(), *both()))
        while not any(event["event"] == "round" for event in events):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # The loop ends when its threads have.
    asyncio.run(short())
    assert max(event.get("step", 0) for event in events) < 50_000
    _, metrics = trained(net())
    assert metrics["steps"] == 30


class Restless(nn.Linear):
    """Draws from each generator that there is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002
        return super().forward(x)


def test_draws_of_python_and_numpy_are_of_the_seed_too() -> None:
    torch.manual_seed(0)
    model = Restless(4, 1)
    first, _ = trained(model)
    before = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    again, _ = trained(model)
    assert same(state(first), state(again))
    assert before == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002


def test_trainings_at_the_same_time_take_turns() -> None:
    trainers = [SAFESCALEAMMTTrainer(brief(seed=seed)) for seed in (0, 1)]
    model = net(1, nn.Dropout(0.3))
    alone = [trainer.train(model, *both())[0] for trainer in trainers]
    mode = torch.get_deterministic_debug_mode()

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(trainer.train_model(model, *both()) for trainer in trainers)
        )

    for one, (other, _) in zip(alone, asyncio.run(together()), strict=True):
        assert same(state(one), state(other))
    assert torch.get_deterministic_debug_mode() == mode


def test_gradients_that_are_off_and_doubles_by_default_are_no_obstacle() -> None:
    expected, _ = trained(net(), promises=GAP)
    with torch.inference_mode():
        found, _ = trained(net(), promises=GAP)
    assert same(state(found), state(expected))
    torch.set_default_dtype(torch.float64)
    try:
        wide, _ = trained(net().double(), promises=GAP)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}


def test_epochs_alone_decide_the_length_unless_steps_are_given() -> None:
    given = read_both(*((data, None) for data in both()), ())

    def plan(**changes: Any) -> Plan:
        run = SAFESCALEAMMTTrainer(brief(**changes)).prepare([net()], given, None)
        return make_plan(run.nets, run.config, run.promises.constitution)

    # 240 rows in batches of 32; the trunk keeps its third.
    by_epochs = plan(max_epochs=500, steps=1200, trunk_steps=400)
    assert (by_epochs.steps, by_epochs.trunk_steps) == (500 * 8, 1333)
    assert plan(max_epochs=5, steps=25).steps == 25
    _, metrics = trained(net(), max_epochs=5, steps=1200, trunk_steps=400)
    assert metrics["steps"] == 40
    assert metrics["epochs"] == pytest.approx(40 * 32 / 240)


def test_epochs_count_the_rows_of_the_batch_that_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("safescale_ammt.training.batch_choice.choice", lambda _: 1)
    settings = {"steps": 60, "trunk_steps": 40, "tune": "population"}
    _, metrics = trained(net(), **settings, tune_also=["batch_size"], tune_budget=100)
    assert metrics["steps"] == 120
    assert metrics["epochs"] == pytest.approx(60 * 32 / 240)


def test_checkpoints_are_of_one_model_these_rows_and_this_config(
    tmp_path: Path,
) -> None:
    given = read_both(*((data, None) for data in both()), ())

    def run(model: nn.Module, **changes: Any) -> str:
        prepared = SAFESCALEAMMTTrainer(brief(**changes)).prepare([model], given, None)
        shelf = checkpoints_of(tmp_path, prepared, identity(prepared, [model]))._shelf
        assert shelf is not None
        return shelf.run

    digests = {run(net()), run(net()), run(net(2)), run(net(), learning_rate=0.02)}
    assert len(digests) == 3


def test_a_checkpoint_is_of_these_inputs_promises_roles_and_this_loss(
    tmp_path: Path,
) -> None:
    def run(scale: float = 1.0, promises: Any = None, **options: Any) -> str:
        given, held = both()
        given.tensors[0].mul_(scale)
        rows = read_both((given, None), (held, None), ())
        trainer = SAFESCALEAMMTTrainer(brief(), **options)
        prepared = trainer.prepare([net()], rows, promises)
        own = identity(prepared, [net()])
        shelf = checkpoints_of(tmp_path, prepared, own)._shelf
        assert shelf is not None
        return shelf.run

    role = Role("one", "noise", noise=0.5)
    digests = [
        run(),
        run(2.0),
        run(promises=GAP),
        run(roles=[role]),
        run(loss=nn.HuberLoss()),
        run(loss=nn.HuberLoss(delta=2.0)),
    ]
    assert len(set(digests)) == len(digests)
    assert run(loss=nn.HuberLoss(delta=2.0)) == digests[-1]


def test_roles_of_the_user_are_dealt_out() -> None:
    own = (Role("one", "noise", noise=0.5), Role("two", "drops", input_drop=0.3))
    found, metrics = trained(net(), options={"roles": own}, num_agents=3)
    assert [agent["role"] for agent in metrics["agents"]] == ["one", "two", "one"]
    assert not same(state(found), state(trained(net(), num_agents=3)[0]))


def test_vision_sees_images_through_noise_and_tables_as_the_generalist() -> None:
    images = X.reshape(64, 1, 2, 2)

    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), *net())

    def run(x: Tensor, role: str) -> tuple[nn.Module, Any]:
        return trained(flat(), (x, Y), (x, Y), agent_specializations=[role], ema=0.5)

    plain, _ = run(images, "generalist")
    vision, metrics = run(images, "vision")
    assert metrics["unapplied"] == []
    assert not same(state(plain), state(vision))
    table, said = run(X, "vision")
    assert same(state(table), state(run(X, "generalist")[0]))
    assert "'vision', a role for images" in said["unapplied"][0]
