"""Does codistillation pay? Two architectures that teach each other, and each alone.

    python -m benchmarks codistillation [--data NAME ...] [--splits 10] [--anew]
                                        [--write]

On each re-split (`agents_rows`) k agents are trained by the public trainer's loop, all
nets for as many steps: all of one architecture, all of the other, half of each without
a word between them, and half of each that teach each other (weight and temperature as
by default). Each of these has a student of all its agents, of each of its
architectures, as `merge: distilled` makes it. A way tries each rate and keeps the one
whose net has the least loss on *validation* and *select*. Held against each other, by
the corrected resampled t-test, are nets of one architecture, and what the least loss on
these rows chooses of a way; accuracy and log loss are of the rows for testing.

Rows are kept as they come in benchmarks/results/codistillation.jsonl (outside of git),
and a command that was stopped goes on behind them; `--anew` drops them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.agents import AGENTS, config_of
from benchmarks.agents_figures import difference
from benchmarks.agents_methods import RATES, RELAXED
from benchmarks.agents_rows import HELD_OUT, Resplit
from benchmarks.provenance import ROOT, figure, in_form, measured_code, store
from safescale_ammt.model.device import keep_freed_memory, settled
from safescale_ammt.modules.form import ModuleForm
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer, read_both
from safescale_ammt.training.architectures import soups
from safescale_ammt.training.codistillation import Codistillation
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.student import SOFT
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

RESULT = ROOT / "benchmarks" / "results" / "codistillation.json"
KEPT = RESULT.with_suffix(".jsonl")
SILENT = Codistillation(weight=0.0)
Row = dict[str, Any]


class Image(nn.Module):
    """Two convolutions on rows of 64 numbers, which it takes for 8 x 8 points."""

    def __init__(self, n_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.last = nn.Linear(24 * 16, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, n_out) of rows (B, 64)."""
        h = torch.relu(self.first(x.view(-1, 1, 8, 8)))
        out: Tensor = self.last(torch.relu(self.second(h)).flatten(1))
        return out


def perceptron(*widths: int) -> Callable[[int, int], nn.Module]:
    """Returns what makes a perceptron of so many hidden units for d inputs."""

    def made(d: int, n_out: int) -> nn.Module:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(d, width), nn.ReLU()]
            d = width
        return nn.Sequential(*layers, nn.Linear(d, n_out))

    return made


PAIRS: dict[str, dict[str, Callable[[int, int], nn.Module]]] = {
    "digits": {"conv": lambda _, n: Image(n), "mlp": perceptron(64)},
    "bumps": {"wide": perceptron(128), "deep": perceptron(32, 32, 32)},
    "breast_cancer": {"linear": perceptron(), "mlp": perceptron(32)},
    "adult": {"linear": perceptron(), "mlp": perceptron(64)},
}
"""Two architectures for each data set, by name."""


def ways(names: Sequence[str]) -> dict[str, tuple[tuple[str, ...], Codistillation]]:
    """Returns by name which architectures agents have, and how they teach."""
    one, other = names
    return {
        f"{one} alone": ((one,), SILENT),
        f"{other} alone": ((other,), SILENT),
        "both, silent": ((one, other), SILENT),
        "both": ((one, other), Codistillation()),
    }


def trained_nets(
    data: str,
    seed: int,
    names: Sequence[str],
    how: Codistillation,
    rate: float,
) -> Iterator[tuple[str, ModuleForm, ModuleNets]]:
    """Trains agents of some architectures; yields the soup and a student of each."""
    split = Resplit.of(data, seed)
    n_out = split.n_out
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # In the same order, so that a net has the same weights in each way.
        every = {
            name: made(split.d_in(""), n_out) for name, made in PAIRS[data].items()
        }
    config = replace(config_of(data, seed), learning_rate=rate)
    parts = [split.joined(p, "") for p in (("train", "constraint"), HELD_OUT)]
    rows, judged = (((part.x, part.y), None) for part in parts)
    given = read_both(rows, judged, ())
    trainer = SAFESCALEAMMTTrainer(config, codistillation=how)
    run = trainer.prepare([every[name] for name in names], given, None)
    done = train(run.nets, run.config, RELAXED, log=discard, twin=False)
    agents = done.agents[done.finite]
    for name, soup in zip(names, soups(run.nets, agents).values(), strict=True):
        yield f"{name} soup", run.nets.deployable(soup, name), run.nets
    for number, name in enumerate(names):
        run.nets.codistillation = replace(how, student=number)
        theta = run.nets.student(done, RELAXED, soft=SOFT)
        yield f"{name} student", run.nets.deployable(theta, name), run.nets


def figures(nets: ModuleNets, model: ModuleForm, rows: EncodedRows) -> dict[str, float]:
    """Returns accuracy and log loss (nats) on rows."""
    out = torch.from_numpy(model.logits(rows.x)).float()
    hits = nets.worth(out[None], rows.y)
    loss = nets.row_losses(out, rows.y).mean()
    return {"accuracy": float(hits.mean()), "loss": float(loss)}


def compared(data: str, seed: int) -> Iterator[Row]:
    """Yields a row for each net of each way on a re-split, at its best rate."""
    split = Resplit.of(data, seed)
    held = split.joined(HELD_OUT, "")
    sizes = len(split.test) / len(split.joined(("train", "constraint"), ""))
    for way, (names, how) in ways([*PAIRS[data]]).items():
        best: dict[str, Row] = {}
        start = time.process_time()
        for rate in RATES:
            for name, model, nets in trained_nets(data, seed, names, how, rate):
                row = {"way": way, "net": name, "rate": rate}
                row["held_loss"] = figures(nets, model, held)["loss"]
                row |= figures(nets, model, split.test) | {"test_to_train": sizes}
                before = best.get(name)
                if before is None or row["held_loss"] < before["held_loss"]:
                    best[name] = row
        spent = round(time.process_time() - start, 3)
        yield from ({**row, "cpu_s": spent} for row in best.values())


def chosen(raw: Sequence[Row], data: str, split: int, way: str, end: str = "") -> Row:
    """Returns the net of a way that has the least held loss; ends of names will do."""
    found = [
        r
        for r in raw
        if (r["data"], r["split"]) == (data, split)
        and r["way"].endswith(way)
        and r["net"].endswith(end)
    ]
    return min(found, key=lambda r: r["held_loss"])


def paired(raw: Sequence[Row]) -> list[Row]:
    """Holds nets that were taught by others against those that were not."""
    found = []
    for data in dict.fromkeys(r["data"] for r in raw):
        splits = list(dict.fromkeys(r["split"] for r in raw if r["data"] == data))
        pairs = []
        for name in PAIRS[data]:
            for net in (f"{name} soup", f"{name} student"):
                pairs += [
                    (("both", net), (f"{name} alone", net)),
                    (("both", net), ("both, silent", net)),
                ]
        pairs += [(("both", ""), ("alone", "")), (("both", ""), ("both, silent", ""))]
        for one, other in pairs:
            both = [[chosen(raw, data, s, *w) for w in (one, other)] for s in splits]
            apart = [a["accuracy"] - b["accuracy"] for a, b in both]
            row = difference(
                f"{one[1] or 'best'}, {one[0]}",
                f"{other[1] or 'best'}, {other[0]}",
                data,
                apart,
                both[0][0],
            )
            row["loss"] = statistics.mean(a["loss"] - b["loss"] for a, b in both)
            found.append(row)
    return found


def summaries(raw: Sequence[Row]) -> list[Row]:
    """Takes means over the re-splits, by data set, way and net."""
    rows = []
    for key in dict.fromkeys((r["data"], r["way"], r["net"]) for r in raw):
        of = [r for r in raw if (r["data"], r["way"], r["net"]) == key]
        row = dict(zip(("data", "way", "net"), key, strict=True))
        row["splits"] = len(of)
        for name in ("accuracy", "loss", "cpu_s"):
            row[name] = statistics.mean(r[name] for r in of)
        rows.append(row)
    return rows


def goals(raw: Sequence[Row]) -> list[Row]:
    """Asks whether the best net that was taught is shown to be better than alone."""
    return [
        figure(
            f"{row['data']}: accuracy, the best of both minus the best alone, least",
            row["lower"],
            [row["lower"], row["upper"]],
            op=">=",
            goal=0.0,
        )
        for row in paired(raw)
        if row["other"] == "best, alone"
    ]


def tables(raw: Sequence[Row]) -> str:
    """Writes all tables as Markdown."""
    lines = ["| data | agents | net | accuracy | log loss | CPU s |", "|---" * 6 + "|"]
    lines += [
        f"| {r['data']} | {r['way']} | {r['net']} | {r['accuracy']:.4f} "
        f"| {r['loss']:.4f} | {r['cpu_s']:.1f} |"
        for r in summaries(raw)
    ]
    lines += ["", "| one | other | data | points | 90 % bounds | says | log loss |"]
    lines += ["|---" * 7 + "|"]
    lines += [
        f"| {r['one']} | {r['other']} | {r['data']} | {100 * r['mean']:+.2f} "
        f"| {100 * r['lower']:+.2f} to {100 * r['upper']:+.2f} | {r['said']} "
        f"| {r['loss']:+.4f} |"
        for r in paired(raw)
    ]
    return "\n".join(lines)


def measured(given: argparse.Namespace) -> list[Row]:
    """Measures what is not kept yet, a re-split of a data set at a time."""
    code = json.dumps(measured_code("codistillation"), sort_keys=True)
    if given.anew:
        KEPT.unlink(missing_ok=True)
    kept = KEPT.read_text().splitlines() if KEPT.is_file() else []
    raw = [json.loads(line) for line in kept]
    if any(row.pop("of_code") != code for row in raw):
        raise SystemExit(
            f"{KEPT.name} holds rows of other code; drop them with --anew."
        )
    done = {(row["data"], row["split"]) for row in raw}
    with settled(1):
        keep_freed_memory()
        for seed in range(given.splits):
            for data in given.data:
                if (data, seed) in done:
                    continue
                head = {"data": data, "split": seed}
                rows = [head | row for row in compared(data, seed)]
                with KEPT.open("a", encoding="utf-8") as file:
                    file.writelines(
                        json.dumps({**row, "of_code": code}) + "\n" for row in rows
                    )
                raw += rows
                print(f"{data} {seed}", file=sys.stderr)
    return raw


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks codistillation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=PAIRS, default=[*PAIRS])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    raw = measured(given)
    print(tables(raw))
    if given.write:
        data = " ".join(given.data)
        found = in_form(
            "codistillation",
            f"python -m benchmarks codistillation --data {data} "
            f"--splits {given.splits} --anew --write",
            packages=("python", "torch", "numpy", "scikit-learn", "scipy"),
            cores=", one thread, beside other programs",
            seeds=range(given.splits),
            own={"agents": AGENTS, "paired": paired(raw)},
            rows=summaries(raw),
            goals=goals(raw),
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
