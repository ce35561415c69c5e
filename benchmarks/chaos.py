"""What poisoned agents and killed processes cost.

    python -m benchmarks chaos [--parts poison kills stage] [--seeds 5] [--first 0]
                               [--size 8x256x400] [--steps 7000] [--kills 3]
                               [--kept FILE] [--write]

poison  Adult and the default genome, one of the agents poisoned (`chaos_poison` has the
        ways), with each aggregate behind the default guard and with the plain mean of
        all. Accuracy is that of the merged model on the development rows that no agent
        trains on (*validation*, *select*, *monitor*; never the sealed ones); *lost* is
        the difference to the sound run with the default aggregate and the same seed. A
        training that ends without a model has the accuracy of the most frequent answer.
kills   SIGKILL of so many of 8 processes (backend torchrun) at random times, and how
        much of the time went into steps of the model (`chaos_kills`).
stage   the same with the stage that trains in one process, which is killed and begun
        again.

`--kept` appends each raw row to a file, and what stands there of this library counts
and is not measured again: a long run can be done seed by seed. `--write` stores
benchmarks/results/chaos.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.agent_settings import HELD
from benchmarks.agents_cost import CACHE, prepared
from benchmarks.chaos_kills import killed
from benchmarks.chaos_poison import PLAIN, POISONED, WAYS, poisoned
from benchmarks.provenance import ROOT, in_form, measured_code, store
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import SafescaleError
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import merge
from safescale_ammt.training.nets import SteppedNets
from safescale_ammt.training.sync import AGGREGATES
from safescale_ammt.training.trainer import train

RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
SHARINGS = (*AGGREGATES, PLAIN)
PARTS = ("poison", "kills", "stage")
MOST_LOST, LEAST_OF_PLAIN, LEAST_GOODPUT = 0.002, 0.05, 0.88
GAP = {"metric": "tpr_gap", "group": "sex", "threshold": 0.08}
PROMISES = Constitution.from_dict(
    {"schema": 1, "principles": [{"id": "equal-opportunity", "constraint": GAP}]}
)


def trained(
    encoded: EncodedDataset, size: str, sharing: str, way: str, seed: int
) -> dict[str, Any]:
    """Trains with one poisoned agent; returns the merged model's accuracy."""
    agents, batch, steps = map(int, size.split("x"))
    config = TrainingConfig(
        num_agents=agents,
        batch_size=batch,
        steps=steps,
        trunk_steps=steps // 3,
        branch=0.0,
        seed=seed,
        sharing="mean" if sharing == PLAIN else sharing,  # type: ignore[arg-type]
    )
    nets: SteppedNets = GenomeNets(encoded, Genome())
    events, start = list[dict[str, Any]](), time.process_time()
    rows = nets.rows(*HELD)
    y = rows.y.numpy()
    row: dict[str, Any] = {"part": "poison", "sharing": sharing, "way": way}
    row |= {"seed": seed, "size": size}
    try:
        with poisoned(way, sharing):
            done = train(nets, config, PROMISES, log=events.append)
        merged = merge(done, PROMISES)
        found = {
            "accuracy": float((rows.answers(merged.model).prediction == y).mean()),
            "choice": merged.choice,
            "left_out": len(merged.left_out),
        }
    except SafescaleError as error:
        most = max(float((y == label).mean()) for label in set(y.tolist()))
        found = {"accuracy": most, "choice": f"none: {error}", "left_out": 0}
    shares = [e for e in events if e["event"] == "share"]
    guarded = [POISONED in (*e["outlying"], *e["lost"]) for e in shares]
    others = [bool({*e["outlying"], *e["lost"]} - {POISONED}) for e in shares]
    found |= {"rounds_guarded": sum(guarded), "rounds_others_out": sum(others)}
    return {**row, **found, "cpu_s": time.process_time() - start}


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields what is kept of this library, then what is asked for beyond it."""
    code = measured_code("chaos")
    del code["benchmarks"]
    keys = ("part", "sharing", "way", "seed", "size")
    kept = options.kept.read_text().splitlines() if options.kept.is_file() else []
    known = [r for r in map(json.loads, kept) if code.items() <= r.pop("code").items()]
    yield from known
    seeds = range(options.first, options.first + options.seeds)
    with tempfile.TemporaryDirectory() as folder:
        encoded = None
        for seed in seeds:
            for part, sharing, way in wanted(options):
                asked = (part, sharing, way, seed, options.size if sharing else "")
                if asked in {tuple(r[k] for k in keys) for r in known}:
                    continue
                if part == "poison":
                    if encoded is None:
                        data = prepared(Path(folder), options.data)
                        encoded = EncodedDataset(Dataset.load(data))
                    row = trained(encoded, options.size, sharing, way, seed)
                else:
                    row = killed(part, seed, options.kills, options.steps)
                print(row, flush=True)
                with options.kept.open("a") as file:
                    file.write(json.dumps({**row, "code": code}) + "\n")
                yield row


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Yields part, aggregate and way of each run of a seed."""
    for part in options.parts:
        if part == "poison":
            for way in options.ways:
                for sharing in options.sharings:
                    yield part, sharing, way
        else:
            yield part, "", ""


def summary(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Takes means over the seeds of what is lost, and each part's least goodput."""
    sound = {
        r["seed"]: r["accuracy"]
        for r in raw
        if (r["sharing"], r["way"]) == (SHARINGS[0], "none")
    }
    rows = []
    of = defaultdict(list)
    for r in raw:
        of[r["part"], r["way"], r["sharing"]].append(r)
    for (part, way, sharing), runs in of.items():
        row: dict[str, Any] = {"part": part, "seeds": len(runs)}
        if part == "poison":
            lost = [
                sound[r["seed"]] - r["accuracy"] for r in runs if r["seed"] in sound
            ]
            row |= {"way": way, "sharing": sharing}
            row |= {"accuracy": statistics.mean(r["accuracy"] for r in runs)}
            row |= {"lost": statistics.mean(lost), "spread": [min(lost), max(lost)]}
            row |= {"without_model": sum(r["choice"].startswith("none") for r in runs)}
        else:
            row |= {"kills": sum(r["kills"] for r in runs)}
            goodput = [r["goodput_wall_s"] for r in runs]
            row |= {"goodput": statistics.mean(goodput)}
            row |= {"spread": [min(goodput), max(goodput)]}
            row |= {"other_models": sum(not r["same_model"] for r in runs)}
        rows.append(row)
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holds the default against the plain mean where that one fails, and goodput."""
    found = []
    poison = {(r["way"], r["sharing"]): r for r in rows if r["part"] == "poison"}
    for (way, sharing), row in poison.items():
        plain = poison.get((way, PLAIN))
        if sharing == SHARINGS[0] and way != "none" and plain:
            failing = " >= .05" if plain["lost"] >= LEAST_OF_PLAIN else ""
            told = f"the plain mean loses {plain['lost']:.4f}{failing}"
            what = f"{way}: accuracy lost by the default; {told}"
            found.append(_goal(what, "<=", MOST_LOST, row["lost"], row["spread"]))
    for row in rows:
        if row["part"] == "kills":
            what = f"{row['part']}: goodput under {row['kills']} kills"
            value = row["goodput"]
            found.append(_goal(what, ">=", LEAST_GOODPUT, value, row["spread"]))
        if row["part"] != "poison":
            what = f"{row['part']}: runs that end in another model"
            value = float(row["other_models"])
            found.append(_goal(what, "==", 0, value, [value, value]))
    return found


def _goal(
    what: str, op: str, goal: float, value: float, spread: Sequence[float]
) -> dict[str, Any]:
    return {"what": what, "op": op, "goal": goal, "value": value, "spread": spread}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes points of accuracy lost, way by aggregate, and the kills."""
    poison = {(r["way"], r["sharing"]): r for r in rows if r["part"] == "poison"}
    columns = list(dict.fromkeys(sharing for _, sharing in poison))
    lines = [f"| poison | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for way in dict.fromkeys(way for way, _ in poison):
        cells = []
        for sharing in columns:
            row = poison.get((way, sharing))
            ended = f" ({row['without_model']} without)" if row else ""
            ended = ended if row and row["without_model"] else ""
            cells.append(f"{100 * row['lost']:+.2f}{ended}" if row else "")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    lines += [
        f"\n{row['part']}: goodput {row['goodput']:.3f} under {row['kills']} kills; "
        f"{row['other_models']} of {row['seeds']} runs end in another model"
        for row in rows
        if row["part"] != "poison"
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sharings", nargs="+", choices=SHARINGS, default=SHARINGS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", default="8x256x400")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--kept", type=Path, default=Path("chaos.jsonl"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = list(measured(options))
    rows = summary(raw)
    print(table(rows))
    if options.write:
        found = in_form(
            "chaos",
            f"python -m benchmarks chaos --parts {' '.join(options.parts)} "
            f"--seeds {options.seeds} --size {options.size} --steps {options.steps} "
            f"--kills {options.kills} --write",
            packages=("python", "torch"),
            cores=", one thread per process, shared with others",
            seeds=sorted({r["seed"] for r in raw}),
            rows=rows,
            goals=goals(rows),
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
