"""What does it cost, and what does it save, to place the nets on several processes?

    python -m benchmarks distributed [--repeats 5] [--steps 200] [--write]

Adult, 8 agents and the twin of the default genome, in 1, 2 and 4 processes on one
machine, joined by gloo over loopback; against data parallel (torch's
`DistributedDataParallel`, one all-reduce of all gradients per step) on the same
nets and as many rows per step. Runs alternate; figures are medians with least and
greatest. Throughput counts steps of one net between the second round and the last,
so that imports, loading and the start are left out; it is options per second on the
clock, which a busy machine spoils, and per CPU second of all processes together.

Bytes are per sync round of 20 steps, over all processes: by formula, as handed to
the collectives (ours), and as the loopback device counted them. For the last, each
group of processes runs in a network namespace of its own, where the system lets us;
elsewhere that figure is absent. About 4 minutes on 2 cores without other load.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.distributed_rank import GENOME, section
from benchmarks.provenance import in_form, store
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.encoded import EncodedDataset

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "distributed.json"
CACHE = Path.home() / ".cache" / "safescale-ammt"
SYSTEMS = ("ours", "data-parallel")
PROCESSES = (1, 2, 4)
NETS = 9  # eight agents and the twin
_OWN_LOOPBACK = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up; exec "$@"')


def own_loopback() -> bool:
    """Says whether processes can be options a loopback device of their own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    # Root may, and others where the kernel allows it: only a try tells.
    result = subprocess.run(
        [*_OWN_LOOPBACK, "sh", "true"], capture_output=True, check=False
    )
    return result.returncode == 0


def group(what: str, processes: int, dataset: Path, steps: int) -> dict[str, Any]:
    """Runs one group of processes and returns what rank 0 measured."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        # The kernel names a free port; the group takes it a moment later.
        free.bind(("127.0.0.1", 0))
        out, port = Path(scratch) / "out.json", free.getsockname()[1]
        free.close()
        isolated = own_loopback()
        starts = " ".join(
            f'RANK={r} "$@" & p{r}=$!;' for r in range(processes)
        ) + " ".join(f" wait $p{r} || exit 1;" for r in range(processes))
        command = [
            *((*_OWN_LOOPBACK, "sh") if isolated else ()),
            *("sh", "-c", starts, "sh"),
            *(sys.executable, "-m", "benchmarks.distributed_rank"),
            *(what, str(dataset), str(steps), str(out)),
        ]
        # Loopback by name: gloo would else take the address of the host's own name.
        joined = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        joined |= {"WORLD_SIZE": str(processes), "GLOO_SOCKET_IFNAME": "lo"}
        environ = {**os.environ, **joined, "OMP_NUM_THREADS": "1"}
        environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        subprocess.run(command, cwd=ROOT, env=environ, check=True)
        figures: dict[str, Any] = json.loads(out.read_text())
    # On a device that others use too, the count says nothing of this group.
    return figures if isolated else {**figures, "loopback_bytes": None}


def measured(dataset: Path, repeats: int, steps: int) -> Iterator[dict[str, Any]]:
    """Yields one raw row per run; systems and sizes alternate."""
    for repeat in range(repeats):
        for processes in PROCESSES:
            for what in SYSTEMS:
                figures = group(what, processes, dataset, steps)
                row = {"system": what, "processes": processes, "repeat": repeat}
                print({**row, **figures}, flush=True)
                yield {**row, **figures}


def formula(what: str, processes: int, parameters: int) -> int:
    """Returns the bytes of weights or gradients per sync round, all processes.

    Ours: the agents' weights, gathered once: a process holds at most m of the k
    agents and passes on n - 1 blocks of m rows, its own first. Data parallel: a
    ring all-reduce of all nets' gradients, 2 (n - 1) / n of them per process, at
    each of the H steps.
    """
    config = section(1)
    if what == "ours":
        most = -(-NETS // processes)
        return processes * (processes - 1) * most * parameters * 4
    return 2 * (processes - 1) * NETS * parameters * 4 * config.sync_every


def summary(raw: Sequence[dict[str, Any]], parameters: int) -> list[dict[str, Any]]:
    """Takes medians over the repeats."""
    rows = []
    every = section(1).sync_every
    for processes in PROCESSES:
        for what in SYSTEMS:
            runs = [
                r for r in raw if (r["system"], r["processes"]) == (what, processes)
            ]
            speeds = [NETS * r["steps"] / r["wall_s"] for r in runs]
            thrift = [NETS * r["steps"] / r["cpu_s"] for r in runs]
            carried = [r["loopback_bytes"] for r in runs]
            rounds = runs[0]["steps"] / every
            rows.append(
                {
                    "system": what,
                    "processes": processes,
                    "net_steps_per_wall_s": statistics.median(speeds),
                    "spread_per_wall_s": [min(speeds), max(speeds)],
                    "net_steps_per_cpu_s": statistics.median(thrift),
                    "formula_bytes": formula(what, processes, parameters),
                    "handed_over_bytes": runs[0].get("handed_over"),
                    "loopback_bytes": None
                    if None in carried
                    else statistics.median(carried) / rounds,
                }
            )
    return rows


def goals(
    raw: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Compares with one process and with data parallel."""
    models = {r["weights"] for r in raw if r["system"] == "ours"}
    by = {(r["system"], r["processes"]): r for r in rows}
    reached = [_goal("models that 1, 2 and 4 processes end with", "==", 1, len(models))]
    for n in PROCESSES[1:]:
        one, other = by["ours", n], by["data-parallel", n]
        # The device's count where there is one: it holds headers and answers too.
        bytes_of = "loopback_bytes" if one["loopback_bytes"] else "formula_bytes"
        share = one[bytes_of] / other[bytes_of]
        reached.append(
            _goal(f"{n} processes: bytes per sync round / peer's", "<=", 0.1, share)
        )
        ratio = one["net_steps_per_wall_s"] / other["net_steps_per_wall_s"]
        reached.append(_goal(f"{n} processes: throughput / peer's", ">=", 1.0, ratio))
        thrift = one["net_steps_per_cpu_s"] / by["ours", 1]["net_steps_per_cpu_s"]
        title = f"{n} processes: net-steps per CPU second / one process'"
        reached.append(_goal(title, ">=", 0.8, thrift))
    return reached


def _goal(what: str, op: str, goal: float, value: float) -> dict[str, Any]:
    spread = [value, value]
    return {"what": what, "op": op, "goal": goal, "value": value, "spread": spread}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    title = (
        "| system | processes | net-steps/s (least to greatest) | per CPU second "
        "| kB per round: formula | handed over | loopback |"
    )
    lines = [title, "|---|---|---|---|---|---|---|"]
    for r in rows:
        low, high = r["spread_per_wall_s"]
        kb = [r[f"{k}_bytes"] for k in ("formula", "handed_over", "loopback")]
        cells = ["-" if b is None else f"{b / 1000:,.0f}" for b in kb]
        lines.append(
            f"| {r['system']} | {r['processes']} | {r['net_steps_per_wall_s']:,.0f} "
            f"({low:,.0f} to {high:,.0f}) | {r['net_steps_per_cpu_s']:,.0f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores the result with `--write`."""
    parser = argparse.ArgumentParser(prog="distributed", description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(argv)
    files = fetch("adult", options.data)
    uris = {role: path.resolve().as_uri() for role, path in files.items()}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch) / "data"
        prepare_data.run(
            {**ADULT.data, **uris},
            *(dataset, Path(scratch) / "holdout"),
            environ={STORE: (Path(scratch) / "store").as_uri()},
        )
        encoded = EncodedDataset(Dataset.load(dataset))
        parameters = GENOME.parameters(encoded.d_in(GENOME.encoding), encoded.n_out)
        raw = list(measured(dataset, options.repeats, options.steps))
    rows = summary(raw, parameters)
    print(table(rows))
    if options.write:
        found = in_form(
            "distributed",
            "python -m benchmarks distributed "
            f"--repeats {options.repeats} --steps {options.steps} --write",
            packages=("torch",),
            cores=", one thread per process, loopback",
            seeds=[0],
            own={"parameters": parameters},
            rows=rows,
            goals=goals(raw, rows),
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
