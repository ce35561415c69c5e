"""Does the battery find what others find, and what masks hide?

    python -m benchmarks attacks --data FOLDER [--packages FOLDER] [--networks NAME ...]
                                 [--images 300] [--kept FILE] [--write]

Fashion-MNIST, L-inf .1 in [0, 1]; small networks trained here (`attack_networks`), of
each the first test images that it answers right. Beside the battery (`full`) stand the
attacks of others that can be had from PyPI (`peers/attacks_requirements.txt`, installed
in the folder that `--packages` names) on the same images, and each of our attacks alone
on the first third of them. `--kept FILE` keeps a line for each network, and a command
that was stopped goes on behind them. `more` is by how much more images survive the
battery than the peer that leaves the fewest, upper bound at level .05 (exact paired).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import fashion_mnist
from benchmarks.attack_networks import MASKED, NETWORKS, network
from benchmarks.peers.attack_peers import PEERS, held_against
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.attacks.attempt import Classifier
from safescale_ammt.attacks.battery import Battery, run_battery
from safescale_ammt.attacks.interval_bounds import certified
from safescale_ammt.attacks.tiers import TIERS, black_box, from_train, white_box
from safescale_ammt.binomial.paired import gain_bounds
from safescale_ammt.constitution.threats import Threat

RESULT = ROOT / "benchmarks" / "results" / "attacks.json"
THREAT, TIER, SEED = Threat("linf", 0.1, (0.0, 1.0)), "full", 0
MORE, LEFT, ALPHA = 0.01, 0.02, 0.05
"""Goals: a point more than the best peer leaves, two percent of a masked network."""
Row = dict[str, Any]


def bits(survived: np.ndarray[Any, Any]) -> str:
    """Returns which images survive, 0 and 1 in a text."""
    return "".join("01"[int(each)] for each in survived)


def right_images(module: nn.Module, folder: Path, most: int) -> tuple[Tensor, Tensor]:
    """Returns the first test images that a network answers right, and their labels."""
    x, y = fashion_mnist.images(folder, "t10k")
    with torch.no_grad():
        right = (module(x).argmax(1) == y).nonzero()[:, 0][:most]
    return x[right], y[right]


def alone(
    module: nn.Module, x: Tensor, y: Tensor, train: Tensor
) -> Iterator[tuple[str, float]]:
    """Yields which share of images survives each attack by itself.

    Args:
        module: a network.
        x: images.
        y: labels.
        train: images of the train split, for AdvGAN.
    """
    tier, draws = TIERS[TIER], torch.Generator().manual_seed(SEED)
    learnt = from_train(tier, Classifier(module), train, THREAT, draws)
    for name, attack in (white_box(tier) | learnt | black_box(tier, {})).items():
        battery = Battery(Classifier(module), x, y, THREAT, b"benchmark")
        battery.run(name, attack)
        yield name, len(battery.left()) / len(y)


def measured(name: str, options: argparse.Namespace) -> Row:
    """Trains a network and attacks it by all there is."""
    train = fashion_mnist.images(options.data, "train")
    module = network(name, *train, THREAT, SEED)
    x, y = right_images(module, options.data, options.images)
    start = time.process_time()
    outcome = run_battery(
        module, x, y, THREAT, tier=TIER, secret=b"benchmark", train_rows=train[0]
    )
    row: Row = {"network": name, "images": len(y), "ours": bits(outcome.survived)}
    row["ours_cpu_s"] = round(time.process_time() - start, 2)
    row |= {"broken": outcome.broken, "escalated": outcome.escalated}
    row["raised"] = [flag.name for flag in outcome.flags if flag.raised]
    third = len(y) // 3
    row["alone"] = dict(alone(module, x[:third], y[:third], train[0]))
    if name == "bounded":
        row["certified"] = float(certified(module, x, y, THREAT).double().mean())
    row["peers"] = {p: held_against(p, module, x, y, THREAT) for p in PEERS}
    return row


def measured_or_kept(options: argparse.Namespace) -> list[Row]:
    """Returns a row for each network; those that are kept are not measured again."""
    kept: Path | None = options.kept
    lines = kept.read_text("utf-8").splitlines() if kept and kept.exists() else []
    rows = {row["network"]: row for row in map(json.loads, lines)}
    for name in options.networks:
        if name in rows:
            continue
        rows[name] = measured(name, options)
        shown = {k: v for k, v in rows[name].items() if k not in ("ours", "peers")}
        print(shown, flush=True)
        if kept:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[name]) + "\n")
    return [rows[name] for name in options.networks]


def figures(raw: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns what survives of each network, with the goals."""
    found = []
    for row in raw:
        name, n, ours = row["network"], row["images"], row["ours"]
        asked: Any = {"op": "<=", "goal": LEFT} if name in MASKED else {}
        share = ours.count("1") / n
        found.append(figure(f"{name}: survive the battery", share, **asked))
        seconds = 1000 * row["ours_cpu_s"] / n
        found.append(figure(f"{name}: CPU seconds of 1,000 images", seconds))
        for attack, left in row["alone"].items():
            found.append(figure(f"{name}: survive {attack} alone", left))
        if "certified" in row:
            found.append(figure(f"{name}: certified", row["certified"]))
        ran = {p: f["survived"] for p, f in row["peers"].items() if "survived" in f}
        for peer, survived in ran.items():
            left = survived.count("1") / n
            found.append(figure(f"{name}: survive {peer}", left))
        if ran:
            best = min(ran, key=lambda p: ran[p].count("1"))
            pairs = list(zip(ours, ran[best], strict=True))
            only, other = pairs.count(("1", "0")), pairs.count(("0", "1"))
            upper = gain_bounds(only, other, n, ALPHA)[1]
            found.append(
                figure(f"{name}: more, against {best}", upper, op="<=", goal=MORE)
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--packages", metavar="FOLDER", default="")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    if options.packages:
        sys.path.insert(0, options.packages)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pyautoattack|torchattacks|foolbox")
    raw = measured_or_kept(options)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        asked = f"--networks {' '.join(options.networks)} --images {options.images}"
        where = "--data FOLDER --packages FOLDER"
        found = in_form(
            "attacks",
            f"python -m benchmarks attacks {where} {asked} --write",
            packages=("torch", "numpy"),
            cores=", one thread",
            seeds=[SEED],
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
