"""The battery: worst case of each row, masks that it breaks, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from safescale_ammt import Threat, run_battery
from safescale_ammt.attacks import battery, tiers
from safescale_ammt.attacks.outcome import CLEAN, NOBODY, Outcome
from safescale_ammt.attacks.planted import (
    Detached,
    Noise,
    Quantised,
    Saturated,
    Winners,
)
from safescale_ammt.attacks.sanity import compared
from safescale_ammt.attacks.seeds import generator_of, module_digest
from safescale_ammt.errors import InputError

THREAT = Threat("linf", 0.3, (0.0, 1.0))
ROWS = 60


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    x = torch.tensor(found.images / 16, dtype=torch.float32)[:, None]
    return x, torch.tensor(found.target)


def trained(middle: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    x, y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(64, 64), middle(), nn.Linear(64, 10)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        at = torch.randint(0, 1500, (64,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[at]), y[at])
        torch.autograd.backward(loss)
        optimizer.step()
    return layers


@pytest.fixture(scope="module")
def layers() -> list[nn.Module]:
    return trained()


def held() -> tuple[Tensor, Tensor]:
    x, y = digits()
    return x[-ROWS:], y[-ROWS:]


def smoke(module: nn.Module, threat: Threat = THREAT, secret: bytes = b"") -> Outcome:
    return run_battery(module, *held(), threat, tier="smoke", secret=secret)


def test_a_row_is_broken_once_inside_ball_and_range_and_never_mended(
    layers: list[nn.Module],
) -> None:
    module, (x, y) = nn.Sequential(*layers), held()
    small = smoke(module, replace(THREAT, eps=0.05))
    assert small.robust_accuracy < small.accuracy < 1
    broken = small.broken_by >= 0
    change = (small.points - x).abs().flatten(1).amax(1).numpy()
    assert np.allclose(change[broken], small.distance[broken])
    assert float(change.max()) <= 0.05 * (1 + 1e-5)
    with torch.no_grad():
        right = module(small.points).argmax(1) == y
        assert np.array_equal(right.numpy(), small.survived)
        assert float((module(x).argmax(1) == y).double().mean()) == small.accuracy
    assert np.isnan(small.distance[small.survived]).all()
    assert (small.distance[small.broken_by == CLEAN] == 0).all()
    assert sum(small.broken.values()) == broken.sum()
    assert set(small.broken_by) <= {NOBODY, CLEAN, *range(len(small.attacks))}


def test_figures_by_class_are_those_of_the_table(layers: list[nn.Module]) -> None:
    found = smoke(nn.Sequential(*layers), replace(THREAT, eps=0.05))
    each = found.by(found.label)
    assert sum(n for _, n in each.values()) == ROWS
    assert sum(left for left, _ in each.values()) == found.survived.sum()
    one = found.label == 3
    assert each[3] == (found.survived[one].sum(), one.sum())


def test_a_battery_is_repeated_by_its_secret_and_leaves_the_module_alone(
    layers: list[nn.Module],
) -> None:
    module = nn.Sequential(*layers).train()
    before, state = module_digest(module), torch.random.get_rng_state()
    threat = replace(THREAT, eps=0.05)
    once, again, other = (smoke(module, threat, s) for s in (b"a", b"a", b"b"))
    assert torch.equal(once.points, again.points)
    assert np.array_equal(once.broken_by, again.broken_by)
    assert not torch.equal(once.points, other.points)
    assert module_digest(module) == before
    assert module.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeds_are_of_secret_model_and_attack() -> None:
    seeds = {
        generator_of(*words).initial_seed()
        for words in ((b"a", "m", "x"), (b"b", "m", "x"), (b"a", "n", "x"))
    }
    assert len(seeds) == 3
    module = nn.Linear(2, 2)
    before = module_digest(module)
    with torch.no_grad():
        module.weight[0, 0] += 1
    assert module_digest(module) != before


def test_an_undefended_network_is_broken_without_doubts_about_attacks(
    layers: list[nn.Module],
) -> None:
    found = smoke(nn.Sequential(*layers))
    assert found.robust_accuracy <= 0.02
    assert not found.escalated
    assert [flag.name for flag in found.flags if flag.raised] == []


@pytest.mark.parametrize("mask", ["quantised", "saturated", "detached", "noise"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_masks_make_no_network_robust(
    layers: list[nn.Module], mask: str, norm: str
) -> None:
    flat, first, middle, last = layers
    masked = {
        "quantised": [Quantised(), *layers],
        "saturated": [*layers, Saturated()],
        "detached": [flat, first, Detached(), middle, last],
        "noise": [Noise(), *layers],
    }[mask]
    threat = THREAT if norm == "linf" else Threat("l2", 2.0, (0.0, 1.0))
    found = smoke(nn.Sequential(*masked), threat)
    assert found.accuracy > 0.8
    assert found.robust_accuracy <= 0.04
    hidden = mask in ("quantised", "detached")
    raised = {flag.name for flag in found.flags if flag.raised}
    assert ("zero gradient" in raised) == hidden
    assert found.escalated or mask in ("saturated", "noise")


def test_winners_take_all_is_broken() -> None:
    found = smoke(nn.Sequential(*trained(Winners)))
    assert found.accuracy > 0.8
    assert found.robust_accuracy <= 0.04
    assert found.escalated
    assert "values jump" in {flag.name for flag in found.flags if flag.raised}


def test_a_generator_that_learns_on_train_rows_is_in_the_longer_tiers(
    layers: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(tiers.TIERS["smoke"], fooling=150)
    monkeypatch.setitem(tiers.TIERS, "full", short)
    monkeypatch.setattr(battery, "white_box", lambda _: {})
    x, y = held()
    module, train = nn.Sequential(*layers), digits()[0][:1500]

    def run(tier: str, rows: Tensor | None) -> Outcome:
        return run_battery(module, x, y, THREAT, tier=tier, train_rows=rows)

    once, again = run("full", train), run("full", train)
    assert once.broken["advgan"] > 0.5 * ROWS
    assert torch.equal(once.points, again.points)
    assert "advgan" not in run("full", None).attacks
    assert "advgan" not in run("smoke", train).attacks
    assert tiers.TIERS["release"].fooling > 0


class Wall(torch.autograd.Function):
    """Rounds, with the slope 0, in the middle of somebody's code."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx: object, *slopes: Tensor) -> Tensor:
        return torch.zeros_like(slopes[0])


class Walled(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(Wall.apply(x))
        return out


def test_where_no_slope_can_be_had_values_are_enough(layers: list[nn.Module]) -> None:
    found = smoke(Walled(layers))
    assert found.escalated
    assert found.robust_accuracy <= 0.04
    assert "zero gradient" in {flag.name for flag in found.flags if flag.raised}


def test_two_classes_and_one_column_have_the_same_battery() -> None:
    x, y = digits()
    layers = trained()
    two = nn.Linear(10, 2)
    with torch.no_grad():
        two.weight.zero_()
        two.weight[0, :5], two.weight[1, 5:] = 1.0, 1.0
    both = nn.Sequential(*layers, two)
    one = nn.Linear(10, 1)
    with torch.no_grad():
        one.weight.copy_(two.weight[1:] - two.weight[:1])
        one.bias.copy_(two.bias[1:] - two.bias[:1])
    single = nn.Sequential(*layers, one)
    rows = x[-ROWS:], (y[-ROWS:] >= 5).long()
    for module in (both, single):
        found = run_battery(module, *rows, THREAT, tier="smoke")
        assert found.accuracy > 0.6
        assert found.robust_accuracy <= 0.05


def test_the_release_tier_always_escalates_and_plants_masks(
    layers: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(tiers.TIERS["smoke"], always=True)
    monkeypatch.setitem(tiers.TIERS, "release", short)
    x, y = held()
    found = run_battery(nn.Sequential(*layers), x[:20], y[:20], THREAT, tier="release")
    assert found.escalated
    assert {flag.name: flag.raised for flag in found.flags}["planted masks"] is False


def test_another_network_is_tried_by_its_name(layers: list[nn.Module]) -> None:
    x, y = held()
    module = Walled(layers)
    given = {"twin": nn.Sequential(*layers)}
    found = run_battery(module, x, y, THREAT, tier="smoke", surrogates=given)
    assert found.broken["transfer twin"] > 0.5 * ROWS


def test_an_attack_that_should_be_weaker_has_to_be_better_by_more_than_a_point() -> (
    None
):
    more, less = torch.zeros(200).bool(), torch.zeros(200).bool()
    more[:3] = True
    assert not compared("", more, less).raised
    more[:30] = True
    flag = compared("", more, less)
    assert flag.raised
    assert flag.value == pytest.approx(0.15)
    assert not compared("", less, more).raised


class Drawing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] + torch.rand(())


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * math.nan


class Two(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"module": Drawing()}, "draws nothing"),
        ({"module": Nan()}, "no finite numbers"),
        ({"module": nn.Flatten(0)}, "labels are|classes|batch"),
        ({"x": torch.zeros(4, 1, 8, 8).long()}, "with a point"),
        ({"x": torch.zeros(4, 1, 8, 8).half()}, "32 or 64 bits"),
        ({"x": torch.zeros(3, 1, 8, 8)}, "as many labels"),
        ({"x": torch.full((4, 1, 8, 8), 1.5)}, "4 of 4 rows"),
        ({"x": torch.full((4, 1, 8, 8), math.nan)}, "no numbers"),
        ({"y": torch.tensor([0, 1, 2, 10])}, "0 to 9"),
        ({"y": torch.tensor([0, 1, 2, -1])}, "0 to 9"),
        ({"y": torch.zeros(4)}, "codes"),
        ({"tier": "ful"}, "nearest is 'full'"),
        ({"surrogates": {"two": Two()}}, r"'two' answers 4 rows by logits \(4, 2\)"),
        ({"surrogates": {"odd": nn.Linear(6, 10)}}, "'odd' does not answer rows"),
        ({"train_rows": torch.zeros(5, 8, 8)}, r"Train rows are \(5, 8, 8\)"),
        ({"train_rows": torch.zeros(0, 1, 8, 8)}, r"Train rows are \(0, 1, 8, 8\)"),
        ({"train_rows": torch.zeros(5, 1, 8, 8).double()}, "of torch.float64"),
        ({"train_rows": torch.full((5, 1, 8, 8), 2.0)}, "5 of 5 train rows"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_one_sentence(
    layers: list[nn.Module], change: dict[str, object], words: str
) -> None:
    x, y = held()
    asked = {"module": nn.Sequential(*layers), "x": x[:4], "y": y[:4]} | change
    with pytest.raises(InputError, match=words):
        run_battery(threat=THREAT, **asked)  # type: ignore[arg-type]


def test_small_codes_and_rows_of_a_graph_are_those_of_plain_tensors(
    layers: list[nn.Module],
) -> None:
    x, y = (part[:20] for part in held())
    module = nn.Sequential(*layers)
    plain = run_battery(module, x, y, THREAT, tier="smoke")
    asking = x.clone().requires_grad_()
    other = run_battery(module, asking, y.to(torch.uint8), THREAT, tier="smoke")
    assert torch.equal(plain.points, other.points)
    assert not other.points.requires_grad
    assert np.array_equal(plain.broken_by, other.broken_by)


def test_an_outcome_says_what_it_shows_and_what_not(layers: list[nn.Module]) -> None:
    said = str(smoke(nn.Sequential(*layers)))
    assert "survive battery smoke, version 2, under linf 0.3 in [0, 1]" in said
    assert "upper bound" in said


def test_the_page_s_program_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "robustness.md"
    code = page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "survive battery" in done.stdout
