"""Is a promised robust accuracy kept by training, and at what cost?

    python -m benchmarks robust-error [--seeds 5] [--write]

Digits of scikit-learn's wheel (8 x 8, in [0, 1]), an MLP of two hidden layers, 4
agents, the promise `robust_accuracy >= .60` under L-inf .15: 1,000 rows train, 397 are
those for validation, and 400 that nothing else reads are attacked at the end by PGD-10.
Plain training, which only reports, stands beside training under the promise; and beside
the attack that trains, one step from noise (N-FGSM), the two others that were weighed:
PGD-2 and a step from the rows themselves (FGSM). `adversarial` is a plain loop of torch
that trains the same net as long on nothing but rows attacked by N-FGSM: what a robust
net costs where nobody says how robust it has to be.

The overestimate is the accuracy under the attack that trained less that under PGD-10:
large where a net has learnt to look robust to that one alone.

About a minute of CPU a seed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.attacks.ball import Ball
from safescale_ammt.attacks.pgd import Answer, n_fgsm, pgd
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.modules import threatened
from safescale_ammt.modules.robust import attacked_logits
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer

RESULT = ROOT / "benchmarks" / "results" / "robust-error.json"
THREAT, LEAST = Threat("linf", 0.15, (0.0, 1.0)), 0.6
TRAIN, HELD = 1000, 397
STEPS, BATCH, AGENTS, RATE = 900, 128, 4, 2e-3
COST = 0.02
"""Clean accuracy that the promise may cost."""
Attack = Callable[[Answer, Tensor, Ball, list[Tensor]], Any]


def steps_of(steps: int, stride: float) -> Attack:
    """Returns so many projected steps from the rows, in units of the radius."""

    def attack(answer: Answer, label: Tensor, ball: Ball, uniform: list[Tensor]) -> Any:
        del uniform
        return pgd(answer, label, ball, steps, stride)

    return attack


ATTACKS: dict[str, Attack] = {
    "promised": n_fgsm,
    "pgd-2": steps_of(2, 0.75),
    "fgsm": steps_of(1, 1.0),
}


def net(seed: int) -> nn.Module:
    """Returns the network, the same for each way."""
    torch.manual_seed(seed)
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def splits(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Returns the rows for training, for validation and for the end."""
    data = load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    y = torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    parts = torch.split(order, [TRAIN, HELD, len(y) - TRAIN - HELD])
    return [(x[part], y[part]) for part in parts]


def agents(seed: int, least: float | None) -> nn.Module:
    """Trains agents; without a least accuracy nothing is promised."""
    config = TrainingConfig(
        num_agents=AGENTS,
        steps=STEPS,
        trunk_steps=STEPS // 3,
        batch_size=BATCH,
        learning_rate=RATE,
        seed=seed,
        execution="loop",
    )
    promises: dict[str, Any] = {"adversarial_budget": THREAT.eps}
    promises["adversarial_range"] = THREAT.range
    if least is not None:
        promises["min_robust_accuracy"] = least
    train, held, _ = splits(seed)
    return SAFESCALEAMMTTrainer(config).train(net(seed), train, held, promises)[0]


def adversarial(seed: int) -> nn.Module:
    """Trains one net on attacked rows alone, as many steps as an agent."""
    model, (x, y) = net(seed), splits(seed)[0]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(0, len(y), (BATCH,), generator=generator)
        ball = Ball(THREAT, x[rows][None], torch.ones(1))
        draws = torch.rand(ball.centre[0].shape, generator=generator)
        moved = n_fgsm(answer_of(model), y[rows][None], ball, [draws])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(moved[0]), y[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        cosine.step()
    return model


def answer_of(model: nn.Module) -> Answer:
    """Returns what one net answers to stacked rows."""
    return lambda x: model(x[0])[None]


def scored(model: nn.Module, seed: int, attack: Attack) -> dict[str, float]:
    """Measures a model on the rows that nothing else reads."""
    x, y = splits(seed)[2]
    model.eval()
    ball = Ball(THREAT, x[None], torch.ones(1))
    draws = torch.rand(x[None].shape, generator=torch.Generator().manual_seed(seed))
    seen = {
        "clean": x,
        "inner": attack(answer_of(model), y[None], ball, [draws])[0],
    }
    with torch.no_grad():
        logits = {name: model(rows) for name, rows in seen.items()}
    logits["robust"] = attacked_logits(model, x, y, THREAT)
    return {
        name: float((out.argmax(1) == y).double().mean())
        for name, out in logits.items()
    }


def measured(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Trains every way once a seed."""
    raw = []
    epochs = STEPS * BATCH / TRAIN
    for seed in seeds:
        for name in ("plain", *ATTACKS, "adversarial"):
            attack = ATTACKS.get(name, n_fgsm)
            start = time.process_time()
            if name == "adversarial":
                model = adversarial(seed)
            else:
                with mock.patch.object(threatened, "n_fgsm", attack):
                    model = agents(seed, None if name == "plain" else LEAST)
            spent = (time.process_time() - start) / epochs
            head = {"seed": seed, "way": name, "epoch_cpu_s": spent}
            raw.append({**head, **scored(model, seed, attack)})
            print(raw[-1], flush=True)
    return raw


def figures(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns means over the seeds; those of the promise have goals."""
    by_way: dict[str, list[dict[str, Any]]] = {}
    for row in raw:
        by_way.setdefault(row["way"], []).append(row)

    def mean(what: str, values: list[float], **asked: Any) -> dict[str, Any]:
        return figure(
            what, statistics.fmean(values), (min(values), max(values)), **asked
        )

    found = []
    for way, rows in by_way.items():
        ours = way == "promised"
        asked: Any = {"op": ">=", "goal": LEAST} if ours else {}
        robust = [r["robust"] for r in rows]
        found.append(mean(f"{way}: accuracy under PGD-10", robust, **asked))
        cost = [
            p["clean"] - r["clean"] for p, r in zip(by_way["plain"], rows, strict=True)
        ]
        asked = {"op": "<=", "goal": COST} if ours else {}
        found.append(mean(f"{way}: clean accuracy lost to plain", cost, **asked))
        over = [r["inner"] - r["robust"] for r in rows]
        found.append(mean(f"{way}: overestimate of the attack that trains", over))
    return found


def seconds(raw: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the median CPU seconds of an epoch of all nets, by way."""
    ways = dict.fromkeys(row["way"] for row in raw)
    return {
        way: statistics.median(r["epoch_cpu_s"] for r in raw if r["way"] == way)
        for way in ways
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.getLogger("safescale_ammt").setLevel(logging.ERROR)
    # None of those that the recipe was looked at with.
    seeds = range(10, 10 + options.seeds)
    raw = measured(seeds)
    rows = figures(raw)
    goals = told(rows)
    print("CPU seconds of an epoch:", seconds(raw))
    if options.write:
        found = in_form(
            "robust-error",
            f"python -m benchmarks robust-error --seeds {options.seeds} --write",
            packages=("torch", "numpy", "scikit-learn"),
            cores=", one thread",
            seeds=list(seeds),
            rows=rows,
            goals=goals,
            raw=raw,
            own={"epoch_cpu_s": seconds(raw)},
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
