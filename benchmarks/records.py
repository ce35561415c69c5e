"""Whether what was done to a record, an approval or a model is found.

    python -m benchmarks records [--parts edits mended approvals models] [--edits 1000]
                                 [--mended 120] [--seed 0] [--write]

A small table of loans goes through all stages (`records_world`): one version becomes
champion, a second pending, an auditor signs the heads of all logs. Then:

edits      random edits, one at a time, of a bundle on a disk, of the record in it, of
           the registry's store and of the ledger (`records_edits`), each looked at by
           the command that is there for it: `safescale verify FOLDER`, and `safescale
           registry verify --head FILE`. A command that breaks has found nothing.
mended     the same edits of a bundle by a forger who then makes every digest fit.
           *anchored*: `verify` knows the digest that was registered. *alone*: it does
           not, and what nobody vouches for may be another whole bundle.
approvals  forged, expired, replayed and self-made acts, one key twice
           (`records_approvals`).
models     bad models that must be blocked, and good ones that must pass
           (`records_models`).

`--write` stores benchmarks/results/records.json, every edit, attempt and model in it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT, in_form, store
from benchmarks.records_approvals import PENDING, honest, owned, tried
from benchmarks.records_edits import Target, edited
from benchmarks.records_models import planted
from benchmarks.records_world import AUDITOR, NAME, World, build, released
from benchmarks.resealing import sealed_again
from pipelines.cli import run_command
from safescale_ammt.errors import SafescaleError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import write_json
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.signed_heads import heads_of, sign_heads

RESULT = ROOT / "benchmarks" / "results" / "records.json"
PARTS = ("edits", "mended", "approvals", "models")
SHARES = {"bundle": 0.3, "record": 0.25, "registry": 0.25, "ledger": 0.2}
"""Which part of all edits strikes what."""
LEAST_BAD = 12
_REFUSED = (2, 3)
"""Exit codes of a command that says what is wrong; 1 is a fault of ours."""


def refused(*words: str | Path) -> str:
    """Runs a command of `safescale`; returns its last sentence if it refuses.

    Raises:
        SystemExit: it broke.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([str(word) for word in words])
    said = err.getvalue().strip().splitlines()
    if code not in (0, *_REFUSED):
        raise SystemExit(f"safescale {words[0]} broke: {said}")
    return "" if code == 0 else said[-1]


def registry_refused(world: World, head: Path | None = None) -> str:
    """Returns why `registry verify` refuses the stores of a world."""
    about = ("--store", world.registry.uri, "--ledger", world.data.uri)
    kept = ("--head", head) if head else ()
    return refused("registry", "verify", *about, *kept)


def targets(world: World, folder: Path) -> dict[str, Target]:
    """Returns what is edited, by name; `folder` gets the bundle and the signed head."""
    bundle, head = folder / "bundle", folder / "head.json"
    registry = Registry(world.registry, NAME)
    registry.get_bundle(registry.show("champion"), bundle)
    heads = heads_of(world.registry, world.data, [NAME])
    write_json(head, sign_heads(heads, AUDITOR, datetime.now(UTC)))
    stores = lambda: registry_refused(world, head)  # noqa: E731
    verify = lambda: refused("verify", bundle)  # noqa: E731
    places = {
        "bundle": (bundle, verify),
        "record": (bundle / "record", verify),
        "registry": (world.folder / "registry", stores),
        "ledger": (world.folder / "store" / "ledger", stores),
    }
    return {name: Target(name, *place) for name, place in places.items()}


def edits(world: World, folder: Path, count: int, seed: int) -> Iterator[Any]:
    """Yields the edits of all targets."""
    for number, target in enumerate(targets(world, folder).values()):
        share = round(count * SHARES[target.name])
        for row in edited(target, share, seed + number):
            yield {"part": "edits", **row}


def mended(world: World, folder: Path, count: int, seed: int) -> Iterator[Any]:
    """Yields edits of a bundle whose digests were made to fit, anchored and alone."""
    bundle = targets(world, folder)["bundle"].folder
    registered = read_manifest(bundle).identity

    def mend(place: Path) -> None:
        # A manifest that cannot be read, or a file that is a part no more, stays so.
        with contextlib.suppress(SafescaleError, KeyError, TypeError, ValueError):
            sealed_again(place)

    ways: dict[str, Callable[[], str]] = {
        "mended, anchored": lambda: refused("verify", bundle, "--digest", registered),
        "mended, alone": lambda: refused("verify", bundle),
    }
    for way, verify in ways.items():
        for row in edited(Target(way, bundle, verify), count, seed, mend):
            yield {"part": "mended", **row}


def approvals(world: World, folder: Path, seed: int) -> Iterator[Any]:
    """Yields every attempt on a copy, then what honest approvals do."""
    own = world.copy(folder / "owned")
    owned(own, folder)
    for row in tried(own, folder / "tried", registry_refused, seed):
        yield {"part": "approvals", **row}
    wrong = honest(own, folder, registry_refused)
    row = {"attempt": "two people approve", "class": "honest", "way": "asked"}
    yield {"part": "approvals", **row, "refused": bool(wrong), "said": wrong}


def models(folder: Path) -> Iterator[Any]:
    """Yields what became of every planted model."""
    with contextlib.redirect_stdout(io.StringIO()):
        rows = [*planted(build(folder / "fresh"), folder)]
    yield from ({"part": "models", **row} for row in rows)


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each edit, attempt and model."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with contextlib.redirect_stdout(io.StringIO()):
            world = released(folder / "released")
        assert Registry(world.registry, NAME).show("pending").number == PENDING
        for part in options.parts:
            work = folder / part
            work.mkdir()
            if part == "edits":
                rows = edits(world, work, options.edits, options.seed)
            elif part == "mended":
                rows = mended(world, work, options.mended, options.seed)
            elif part == "approvals":
                rows = approvals(world, work, options.seed)
            else:
                rows = models(work)
            for row in rows:
                yield {**row, "said": steady(str(row["said"]), folder)}
            shutil.rmtree(work)


def steady(said: str, folder: Path) -> str:
    """Leaves out of a sentence what differs from run to run."""
    said = said.replace(folder.as_uri(), "").replace(str(folder), "")
    said = re.sub(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b", "DIGEST", said)
    said = re.sub(r"\.safescale-\w+|ed25519:[\w+/=]+", "...", said)
    said = re.sub(r"\d+ \w+ \d{4}, \d\d:\d\d UTC", "TIME", said)
    return re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:\+[\d:]+)?", "TIME", said)


def summary(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts what was found, by part, target or class, and kind."""
    counted: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for row in raw:
        if row["part"] in ("edits", "mended"):
            key = (row["target"], row["kind"], row["detected"])
        elif row["part"] == "approvals":
            key = (row["class"], row["way"], row["refused"])
        else:
            key = (row["kind"], "all", row["right"])
        counted[(row["part"], *key[:2])].append(bool(key[2]))
    return [
        {
            "part": part,
            "what": what,
            "kind": kind,
            "cases": len(all_),
            "found": sum(all_),
        }
        for (part, what, kind), all_ in counted.items()
    ]


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holds the counts against the issue's goals."""
    found = []

    def goal(what: str, op: str, line: float, value: float) -> None:
        found.append({"what": what, "op": op, "goal": line, "value": value})

    def counts(keep: Callable[[dict[str, Any]], bool]) -> tuple[int, int]:
        kept = [row for row in rows if keep(row)]
        return sum(r["found"] for r in kept), sum(r["cases"] for r in kept)

    for target in dict.fromkeys(r["what"] for r in rows if r["part"] == "edits"):
        hits, cases = counts(lambda r, t=target: r["what"] == t)  # type: ignore[misc]
        goal(f"share of {cases} edits of the {target} found", ">=", 1, hits / cases)
    hits, cases = counts(lambda r: r["what"] == "mended, anchored")
    if cases:
        what = f"share of {cases} edits with mended digests found, digest registered"
        goal(what, ">=", 1, hits / cases)
    acts = dict.fromkeys(r["what"] for r in rows if r["part"] == "approvals")
    for kind in acts:
        hits, cases = counts(lambda r, k=kind: r["what"] == k)  # type: ignore[misc]
        line, op = (0, "<=") if kind == "honest" else (1, ">=")
        what = f"share of {cases} approvals refused: {kind}"
        goal(what, op, line, hits / cases)
    for kind, end in (("bad", "blocked"), ("good", "passed")):
        hits, cases = counts(lambda r, k=kind: r["what"] == k)  # type: ignore[misc]
        if cases:
            goal(f"share of {cases} planted {kind} models {end}", ">=", 1, hits / cases)
    if bad := counts(lambda r: r["what"] == "bad")[1]:
        goal("kinds of planted bad models", ">=", LEAST_BAD, bad)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes found of all, kind by target."""
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        columns = list(dict.fromkeys(row["what"] for row in own))
        lines += ["", f"| {part} | {' | '.join(columns)} |"]
        lines.append("|---" * (1 + len(columns)) + "|")
        for kind in dict.fromkeys(row["kind"] for row in own):
            cells = {
                r["what"]: f"{r['found']} of {r['cases']}"
                for r in own
                if r["kind"] == kind
            }
            lines.append(
                f"| {kind} | {' | '.join(cells.get(c, '') for c in columns)} |"
            )
    return "\n".join(lines).strip()


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and what was missed; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--mended", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = list(measured(options))
    rows = summary(raw)
    print(table(rows))
    for row in raw:
        good = row.get("detected", row.get("right", row.get("refused")))
        if not good and row.get("class") != "honest":
            print(f"missed: {row}")
    if options.write:
        found = in_form(
            "records",
            f"python -m benchmarks records --parts {' '.join(options.parts)} "
            f"--edits {options.edits} --mended {options.mended} "
            f"--seed {options.seed} --write",
            packages=("python", "cryptography", "pyarrow", "torch"),
            cores=None,
            seeds=[options.seed],
            rows=rows,
            goals=goals(rows),
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
