"""`safescale constitution`: can these data certify what is promised?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from pipelines.output import say

if TYPE_CHECKING:
    from pipelines.workload import Workload
    from safescale_ammt.config.sections import SearchConfig
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.judging.power.report import Odds, PowerReport


@click.group()
def constitution() -> None:
    """Checks a constitution."""


@constitution.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data",
    "dataset",
    type=click.Path(path_type=Path),
    help="Dataset artifact; only its counts are read.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Workload file: its raw rows are prepared in a temporary folder.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Replaces one value of the config; may be repeated.",
)
@click.option(
    "--store", metavar="URI", help="Object store that raw rows of s3:// lie in."
)
@click.option(
    "--draws", type=int, help="Simulated sealed sets  [default: the config's, or 2000]."
)
@click.option(
    "--seed", type=int, help="Seed of the simulation  [default: the config's, or 0]."
)
def check(  # noqa: PLR0917  click passes by name
    file: Path | None,
    dataset: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    store: str | None,
    draws: int | None,
    seed: int | None,
) -> None:
    """Prints how likely the gate is to pass, by the true state of affairs.

    The constitution is FILE, or the one that --config names. The rows are those of
    --data, a prepared dataset, or the raw ones of --config.

    Exits with 2 if a promise is not certifiable, and says which one would be.
    """
    from pipelines.workload import Workload
    from safescale_ammt.config.sections import SearchConfig
    from safescale_ammt.constitution.constitution import Constitution

    # Through the section, which knows what these two may be.
    asked = {"power_draws": draws, "seed": seed}
    given: dict[str, Any] = {
        key: value for key, value in asked.items() if value is not None
    }
    apart = bool(overrides or store or config)
    if file is not None and dataset is not None and not apart:
        print_odds(Constitution.load(file), dataset, SearchConfig(**given))
    elif config is not None and dataset is None:
        workload = Workload.load(config, constitution=file, overrides=overrides)
        search = replace(workload.search, **given)
        with prepared_in_passing(workload, config.parent, store) as folder:
            print_odds(workload.constitution, folder, search)
    else:
        raise click.UsageError(
            "Give --config WORKLOAD to check its raw rows, or FILE and --data DATASET "
            "alone for rows that are prepared already."
        )


@contextmanager
def prepared_in_passing(
    workload: Workload, folder: Path, store: str | None
) -> Iterator[Path]:
    """Yields the dataset of a workload's raw rows, and removes it afterwards.

    Made by the pipeline's own stage. Sources are as a file in `folder` names them;
    `store` is the URI of the object store of s3:// rows, None the environment's.
    """
    from pipelines.local.state import DOWNLOADS
    from pipelines.local.store import opened_store
    from pipelines.sources import ROLES, resolve_locally
    from safescale_ammt.execution import stopping_at_sigterm
    from safescale_ammt.stages import prepare_data
    from safescale_ammt.store.uri import STORE

    remote = any(getattr(workload.data, r).startswith("s3://") for r in ROLES)
    with (
        # A stop must not leave people's rows behind.
        stopping_at_sigterm("constitution check"),
        TemporaryDirectory(prefix="safescale-check-") as scratch,
        # Nothing is stored: the embedded store would only take seconds to start.
        opened_store(store) if remote else nullcontext(),
    ):
        here = resolve_locally(workload, None, folder, DOWNLOADS)
        dataset, holdout = Path(scratch, "dataset"), Path(scratch, "holdout")
        # Its sealed rows go with the folder: nothing is stored that outlives this.
        environ = {STORE: Path(scratch, "store").as_uri()}
        section = here.data.to_params()
        summary = prepare_data.run(section, dataset, holdout, environ=environ)
        for key, value in summary.items():
            # The warnings stand above already.
            if value and key != "warnings" and not str(value).startswith("sha256:"):
                told = value
                if isinstance(value, dict):
                    told = ", ".join(f"{name} {n:,}" for name, n in value.items())
                say(f"{key}: {told}")
        yield dataset


def print_odds(constitution: Constitution, dataset: Path, search: SearchConfig) -> None:
    """Prints the power check of a dataset: odds, and what is certifiable.

    Raises:
        ConstitutionError: a promise about groups that the dataset does not have.
        Uncertifiable: a promise is not certifiable.
    """
    from safescale_ammt.constitution.constitution import BIT
    from safescale_ammt.constitution.promise_warnings import (
        NOTHING,
        promise_warnings,
        shared_level,
    )
    from safescale_ammt.data.counts import Counts
    from safescale_ammt.data.schema import Schema
    from safescale_ammt.files.artifacts import verify
    from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable
    from safescale_ammt.stages.search_architecture import check_groups

    for sentence in promise_warnings(constitution):
        click.echo(f"Warning: {sentence}")
    # Before its counts are read: of a dataset that was changed the odds mean nothing.
    verify(dataset, "dataset")
    schema = Schema.load(dataset)
    check_groups(constitution, schema)
    report = power_check(
        constitution,
        Counts.load(dataset),
        draws=search.power_draws,
        seed=search.seed,
        lines=True,
        unit=schema.unit,
    )
    click.echo(report.basis)
    for lines in (power_table, certifiable):
        for line in lines(constitution, report):
            say(line)
    if constitution.gate.planned_submissions > 1 and constitution.gate.feedback == BIT:
        say(shared_level(constitution.gate))
    # After the table, which a refusal is read beside; it says the sentence by itself.
    refuse_uncertifiable(constitution, report)
    if report.sentence != NOTHING:  # a warning above says it
        say(report.sentence)


def certifiable(constitution: Constitution, report: PowerReport) -> Iterator[str]:
    """Yields which principles are certifiable, and their least certifiable lines."""
    answers = {power.principle: power.answer for power in report.principles}
    yield "certifiable on these counts"
    for principle in constitution.principles:
        # Nothing hangs on a soft one, so that it needs no power.
        answer = answers.get(principle.id, "soft: reported, not gated and not checked")
        if principle.constraint.promises_nothing:
            answer = "promises nothing, as no model can violate it"
        yield f"  {principle.id} ({principle.sentence()}): {answer}"


def power_table(constitution: Constitution, report: PowerReport) -> Iterator[str]:
    """Yields the odds of each decision, by principle and jointly, line by line."""
    if not report.principles:
        return
    yield f"{'principle':<24}{'truth':<24}{'pass':>6}{'human':>7}{'fail':>6}"
    for power in report.principles:
        sentence = constitution.principle(power.principle).sentence()
        yield f"{power.principle:<23} {sentence}"
        yield from _rows((*power.table, power.spread))
    yield "jointly"
    yield from _rows((*report.table, report.spread))


def _rows(table: tuple[Odds, ...]) -> Iterator[str]:
    for odds in table:
        # No scale: the row averages over the true values that training may leave.
        truth = "as training leaves it"
        if odds.scale is not None:
            value = f" ({odds.value:.4f})" if odds.value is not None else ""
            truth = f"{odds.scale:g} x tolerance{value}"
        yield (
            f"{'':<24}{truth:<24}"
            f"{odds.passes:>6.2f}{odds.human:>7.2f}{odds.fails:>6.2f}"
        )
