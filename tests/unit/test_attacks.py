"""Attacks, each by itself: what is known exactly, and what always holds."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from safescale_ammt.attacks.advgan import advgan, fitted
from safescale_ammt.attacks.apgd import apgd, apgd_targeted, checkpoints
from safescale_ammt.attacks.attempt import Attack, Attempt, Classifier
from safescale_ammt.attacks.fgsm import fgsm, steps_of_pgd
from safescale_ammt.attacks.fmn import fmn, minimum_norm
from safescale_ammt.attacks.interval_bounds import bounds, certified
from safescale_ammt.attacks.losses import cross_entropy, dlr, margin
from safescale_ammt.attacks.planted import Detached, Quantised
from safescale_ammt.attacks.sanity import unsummed
from safescale_ammt.attacks.seeds import module_digest
from safescale_ammt.attacks.slopes import (
    PAIRS,
    WIDE,
    Passing,
    estimated,
    exact,
    gradient,
    smoothed,
)
from safescale_ammt.attacks.square import bump, eta, share_of, square
from safescale_ammt.attacks.surrogate import distilled, transfer
from safescale_ammt.attacks.tiers import STARTS, TIERS, escalation
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import InputError

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": steps_of_pgd,
    "apgd-ce": partial(apgd, steps=40, restarts=2),
    "apgd-dlr-t": partial(apgd_targeted, steps=40, aims=9),
    "fmn": partial(fmn, steps=150),
    "square": partial(square, queries=300),
}
NORMS = ("linf", "l2")


def linear(columns: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(12, columns).eval()


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trial_of(module: nn.Module, x: Tensor, threat: Threat, seed: int = 1) -> Attempt:
    target = Classifier(module)
    return Attempt.of(target, x, target.codes(x), threat, draws(seed))


def rows(n: int = 60) -> Tensor:
    return torch.randn((n, 12), generator=draws(7))


def radii(module: nn.Linear, x: Tensor, norm: str) -> Tensor:
    """The least change that a linear model answers otherwise, by its formula."""
    target = Classifier(module)
    z, y = (part.detach() for part in target.answer(x))
    w = module.weight.detach()
    w = torch.cat([-w, w]) / 2 if len(w) == 1 else w
    apart = w[y][:, None] - w[None]
    dual = apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2)
    each = (z.gather(1, y[:, None]) - z) / dual
    own = nn.functional.one_hot(y, z.shape[1]).bool()
    return each.masked_fill(own, math.inf).amin(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-dlr-t", "fmn"])
def test_of_two_classes_every_gradient_attack_finds_what_a_linear_model_hides(
    name: str, columns: int, norm: str
) -> None:
    module, x = linear(columns), rows()
    radius = radii(module, x, norm)
    eps = float(radius.median()) * 1.001
    attempt = trial_of(module, x, Threat(norm, eps))
    survived = attempt.target.codes(ATTACKS[name](attempt)) == attempt.y
    # The search for the least change ends a little behind the border.
    clear = (radius / eps - 1).abs() > (5e-3 if name == "fmn" else 1e-5)
    assert int(clear.sum()) > 50
    found, there = ~survived[clear], (radius < eps)[clear]
    # And it may stop on the border itself, a rounding short of it.
    missed = int((found != there).sum())
    assert missed <= (name == "fmn")
    assert not bool((found & ~there).any())


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_apgd_is_exact_for_ten_classes(norm: str) -> None:
    module, x = linear(10), rows()
    radius = radii(module, x, norm)
    eps = float(radius.median()) * 1.001
    attempt = trial_of(module, x, Threat(norm, eps))
    survived = attempt.target.codes(ATTACKS["apgd-dlr-t"](attempt)) == attempt.y
    assert torch.equal(survived, radius > eps)


@pytest.mark.parametrize("norm", NORMS)
def test_the_least_distance_of_a_linear_model_is_its_formula(norm: str) -> None:
    module, x = linear(1), rows()
    found, distance = minimum_norm(trial_of(module, x, Threat(norm, 1.0)), 200)
    torch.testing.assert_close(distance, radii(module, x, norm), rtol=2e-3, atol=1e-6)
    target = Classifier(module)
    assert bool((target.codes(found) != target.codes(x)).all())


def test_distance_0_is_of_rows_that_are_wrong_and_failure_is_infinite() -> None:
    module, x = linear(3), rows(8)
    target = Classifier(module)
    y = target.codes(x)
    y[0] = (y[0] + 1) % 3
    same = nn.Sequential(Detached(), module)
    attempt = Attempt.of(Classifier(same), x, y, Threat("l2", 1.0), draws())
    found, distance = minimum_norm(attempt, 5)
    assert distance[0] == 0
    assert bool(distance[1:].isinf().all())
    assert torch.equal(found, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (12,)])
def test_points_are_inside_ball_and_range_and_a_seed_repeats_them(
    name: str, norm: str, shape: tuple[int, ...]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        d = math.prod(shape)
        module = nn.Sequential(nn.Flatten(), nn.Linear(d, 9), nn.ReLU())
        module.append(nn.Linear(9, 4))
    x = torch.rand((7, *shape), generator=draws(5))
    threat = Threat(norm, 0.3, (0.0, 1.0))
    once, again = (ATTACKS[name](trial_of(module, x, threat)) for _ in range(2))
    assert torch.equal(once, again)
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    attempt = trial_of(module, x, threat)
    assert float(attempt.ball.lengths(once).max()) <= 0.3 * (1 + 1e-5)


@pytest.mark.parametrize("name", ["apgd-ce", "square"])
def test_another_seed_is_another_search(name: str) -> None:
    module, x = linear(10), rows()
    first, other = (
        ATTACKS[name](trial_of(module, x, Threat("linf", 0.01), seed))
        for seed in (1, 2)
    )
    assert not torch.equal(first, other)


def test_checkpoints_are_those_of_the_paper() -> None:
    # p = .22, .41, .57, .70, .80, .87, .93, .99 of 100 steps.
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_the_ratio_of_differences_by_its_formula() -> None:
    z, y = torch.tensor([[4.0, 1.0, 3.0, 0.5, 2.0]]), torch.tensor([0])
    expected = -(4.0 - 1.0) / (4.0 - (2.0 + 1.0) / 2)
    assert float(dlr(z, y, torch.tensor([1]))) == pytest.approx(expected)
    three = z[:, :3]
    assert float(dlr(three, y, torch.tensor([2]))) == pytest.approx(-(4 - 3) / (4 - 1))
    two = z[:, :2]
    assert float(dlr(two, y, torch.tensor([1]))) == float(margin(two, y, y)) == -3.0


def test_the_log_loss_has_slopes_where_logits_are_far_apart() -> None:
    z = torch.tensor([[3e4, 0.0, -1e4]], requires_grad=True)
    y = torch.tensor([0])
    plain = nn.functional.cross_entropy(z, y)
    assert not bool(torch.autograd.grad(plain, z)[0].any())
    (found,) = torch.autograd.grad(cross_entropy(z, y, y).sum(), z)
    assert found[0, 0] < 0 < found[0, 1]
    near = torch.tensor([[3.0, 0.0, -1.0]])
    same = nn.functional.cross_entropy(near, y)
    assert float(cross_entropy(near, y, y)) == float(same)


def test_windows_of_square_shrink_as_in_the_paper() -> None:
    shares = [share_of(q, 10_000) for q in (1, 11, 51, 201, 1001, 2001, 9000)]
    assert shares == [0.8 / 2**k for k in (0, 1, 2, 3, 4, 5, 8)]
    assert share_of(6, 5000) == share_of(11, 10_000)


def test_a_bump_and_the_pattern_of_a_window_by_their_formulas() -> None:
    whole = 1 + 1 / 4 + 1 / 9
    expected = [[1 / 4 + 1 / 9] * 3, [1 / 4 + 1 / 9, whole, 1 / 4 + 1 / 9]]
    torch.testing.assert_close(bump(3, 3)[:2], torch.tensor(expected))
    pattern = eta(6, 6, draws())
    assert float(pattern.norm()) == pytest.approx(1.0)
    assert float(pattern.sum()) == pytest.approx(0.0, abs=1e-5)


class OwnCode(nn.Module):
    """Hides the slopes of a linear model in one of the ways that code can."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, linear(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "round":
            x = torch.round(x * 8) / 8
        elif self.how == "no_grad":
            with torch.no_grad():
                x = x * 1
        elif self.how == "detach":
            x = x.detach()
        out: Tensor = self.linear(x)
        return torch.softmax(1e4 * out, 1) if self.how == "softmax" else out


@pytest.mark.parametrize("how", ["round", "no_grad", "detach", "softmax", "layer"])
def test_slopes_pass_through_what_hides_them_and_answers_stay(how: str) -> None:
    module = nn.Sequential(Quantised(), linear(3)) if how == "layer" else OwnCode(how)
    x = rows(20)
    target, passing = Classifier(module), Passing(module)
    y = target.codes(x)
    hidden = gradient(target, margin, x, y, y)[2].flatten(1).any(1)
    # A few rows of a softmax are near enough to a border to have a slope.
    assert float(hidden.double().mean()) < 0.2
    value, codes, slopes = gradient(passing, margin, x, y, y)
    assert bool(slopes.flatten(1).any(1).all())
    assert torch.equal(codes, y)
    assert torch.equal(value, margin(target.answer(x)[0], y, y))
    open_ = gradient(Classifier(linear(3)), margin, x, y, y)[2]
    alike = nn.functional.cosine_similarity(slopes, open_).mean()
    # Which class comes second is not to be seen where all others are 0.
    assert float(alike) > 0.8


class Jump(nn.Module):
    """Is the identity, and 5 above it right of 0; it tells the slope 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 5.0 * (x > 0)


def test_slopes_across_jumps_are_those_of_the_means_around() -> None:
    x = torch.linspace(-1, 1, 1000).view(1, 1000)
    size = float(x.square().mean().sqrt())
    passing = Passing(nn.Sequential(Jump()), draws())
    x.requires_grad_()
    (found,) = torch.autograd.grad(passing.answer(x)[0].sum(), x)
    radii = [(2 * j + 1) / PAIRS * WIDE * size for j in range(PAIRS)]
    each = [1 + 5 * (x.detach().abs() < r) / (2 * r) for r in radii]
    torch.testing.assert_close(found, torch.stack(each).mean(0), atol=1e-3, rtol=1e-3)
    assert torch.equal(passing.answer(x)[0], Jump()(x))
    (own,) = torch.autograd.grad(Passing(Jump()).answer(x)[0].sum(), x)
    assert bool((own == 1).all())


class Backwards(nn.Module):
    """Falls by jumps of 1/4, and rises with slope 1 between them: -x on the whole."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x % 0.125) - x


@pytest.mark.parametrize("norm", NORMS)
def test_what_slopes_between_jumps_hide_is_found_across_them(norm: str) -> None:
    module, x = nn.Sequential(Backwards(), linear(2)), rows(100)
    radius = radii(linear(2), -x, norm)
    attempt = trial_of(module, x, Threat(norm, 2 * float(radius.median())))
    near = (radius < 0.7 * attempt.ball.threat.eps).nonzero()[:, 0]
    assert len(near) > 50

    def broken(attack: Attack) -> float:
        part = attempt.part(near)
        return float((part.target.codes(attack(part)) != part.y).double().mean())

    smoke = TIERS["smoke"]
    assert broken(escalation(smoke, module)["across"]) > 0.95
    assert broken(partial(apgd, steps=smoke.steps, restarts=STARTS)) < 0.8


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.Hardtanh()])
def test_layers_without_jumps_keep_their_own_slopes(layer: nn.Module) -> None:
    x = (3 * rows(20)).requires_grad_()
    (own,) = torch.autograd.grad(layer(x).sum(), x)
    passing = Passing(nn.Sequential(layer), draws())
    (found,) = torch.autograd.grad(passing.answer(x)[0].sum(), x)
    # Where a layer hardly changes its input, or tanh is flat, slopes pass through.
    assert torch.equal(found, own) or torch.equal(found, torch.ones_like(own))


def test_slopes_add_up_to_values_unless_values_jump() -> None:
    module, x = linear(2), rows()
    attempt = trial_of(module, x, Threat("linf", 0.3))
    assert float(unsummed(attempt, fgsm(attempt)).max()) < 1e-3
    assert not bool(unsummed(attempt, x).any())
    # On the way the margin falls by 2 times 12 numbers, and once by a jump of 5.
    step = nn.Sequential(Jump(), nn.Linear(12, 2, bias=False))
    with torch.no_grad():
        step[1].weight.copy_(torch.tensor([[0.5], [-0.5]]).expand(2, 12))
    x = torch.ones(1, 12)
    moved = x.clone()
    moved[0, 0] = -1.0
    found = unsummed(trial_of(step, x, Threat("linf", 2.0)), moved)
    assert float(found) == pytest.approx(5 / (7 + 2))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("columns", [1, 4])
def test_a_generator_learns_what_a_linear_model_hides(columns: int, norm: str) -> None:
    module, train = linear(columns), rows(500)
    digest, x = module_digest(module), torch.randn((200, 12), generator=draws(9))
    radius = radii(module, x, norm)
    threat = Threat(norm, 1.5 * float(radius.median()))
    attempt = trial_of(module, x, threat)
    once, again = (fitted(attempt.target, train, threat, draws(), 300) for _ in "ab")
    moved = advgan(attempt, once)
    assert torch.equal(moved, advgan(attempt, again))
    broken = attempt.target.codes(moved) != attempt.y
    assert not bool((broken & (radius > threat.eps * (1 + 1e-5))).any())
    near = broken[radius < 0.8 * threat.eps].double().mean()
    assert float(near) > (0.8 if columns == 1 else 0.5)
    assert module_digest(module) == digest
    assert all(part.grad is None for part in module.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (12,), (2, 3)])
def test_changes_of_a_generator_are_inside_ball_and_range(
    shape: tuple[int, ...], norm: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 4))
    x = torch.rand((9, *shape), generator=draws(5))
    threat = Threat(norm, 0.3, (0.0, 1.0))
    attempt = trial_of(module, x, threat)
    moved = advgan(attempt, fitted(attempt.target, x, threat, draws(), 3))
    assert not torch.equal(moved, x)
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert float(attempt.ball.lengths(moved).max()) <= 0.3 * (1 + 1e-5)


def test_estimated_and_smoothed_slopes_of_a_linear_model_are_its_own() -> None:
    module, x = linear(2), rows(20)
    target = Classifier(module)
    y = target.codes(x)
    own = exact(target, margin)(x, y, y)[2]
    for of, draw in ((estimated, 2000), (smoothed, 3)):
        found = of(target, margin, draws(), 0.1, draw)(x, y, y)[2]
        alike = nn.functional.cosine_similarity(found, own)
        assert float(alike.min()) > 0.98


def test_a_stand_in_answers_like_the_target_and_its_points_fool_it() -> None:
    module, x = nn.Sequential(Detached(), linear(3)), rows(80)
    radius = radii(linear(3), x, "linf")
    attempt = trial_of(module, x, Threat("linf", 2 * float(radius.median())))
    stand_in = distilled(attempt, 150)
    agree = Classifier(stand_in).codes(x) == attempt.y
    assert float(agree.double().mean()) > 0.8
    moved = transfer(attempt, stand_in, 20)
    assert float((attempt.target.codes(moved) == attempt.y).double().mean()) < 0.5


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16, 3)),
        ).eval()


def test_interval_bounds_hold_all_that_is_in_the_box() -> None:
    module, x = net(), torch.rand((6, 1, 8, 8), generator=draws())
    low, high = bounds(module, x - 0.1, x + 0.1)
    with torch.no_grad():
        for seed in range(50):
            moved = x + 0.1 * (2 * torch.rand(x.shape, generator=draws(seed)) - 1)
            out = module(moved)
            assert bool(((out >= low - 1e-6) & (out <= high + 1e-6)).all())
        torch.testing.assert_close(bounds(module, x, x)[0], module(x))


def test_a_linear_model_is_certified_just_where_its_radius_says() -> None:
    module, x = linear(1), rows()
    y, radius = Classifier(module).codes(x), radii(linear(1), x, "linf")
    eps = float(radius.median()) * 1.001
    assert torch.equal(certified(module, x, y, Threat("linf", eps)), radius > eps)


def test_no_certified_row_is_broken() -> None:
    module, x = net(), torch.rand((60, 1, 8, 8), generator=draws())
    threat = Threat("linf", 0.01, (0.0, 1.0))
    attempt = trial_of(module, x, threat)
    safe = certified(module, x, attempt.y, threat)
    assert bool(safe.any())
    for attack in ATTACKS.values():
        assert bool((attempt.target.codes(attack(attempt)) == attempt.y)[safe].all())
    wrong = (attempt.y + 1) % 3
    assert not bool(certified(module, x, wrong, threat).any())


@pytest.mark.parametrize(
    ("module", "threat", "words"),
    [
        (nn.Sequential(nn.Linear(12, 2), nn.GELU()), Threat("linf", 0.1), "GELU"),
        (linear(2), Threat("l2", 0.1), "l2"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
            Threat("linf", 0.1),
            "circular",
        ),
    ],
)
def test_what_has_no_interval_bounds_is_refused(
    module: nn.Module, threat: Threat, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        certified(module, rows(2), torch.zeros(2).long(), threat)
