"""`safescale constitution`: can these data certify what is promised?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.judging.power.report import Odds, PowerReport


@click.group()
def constitution() -> None:
    """Checks a constitution."""


@constitution.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "dataset",
    type=click.Path(path_type=Path),
    required=True,
    help="Dataset artifact; only its counts are read.",
)
@click.option("--draws", default=2000, show_default=True, help="Simulated sealed sets.")
@click.option("--seed", default=0, show_default=True, help="Seed of the simulation.")
def check(file: Path, dataset: Path, draws: int, seed: int) -> None:
    """Prints how likely the gate is to pass, by the true state of affairs.

    Exits with 2 if a promise is not certifiable, and says which one would be.
    """
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.data.counts import Counts
    from safescale_ammt.files.artifacts import verify
    from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable

    constitution = Constitution.load(file)
    # Before its counts are read: of a dataset that was changed the odds mean nothing.
    verify(dataset, "dataset")
    counts = Counts.load(dataset)
    report = power_check(constitution, counts, draws=draws, seed=seed)
    for line in power_table(constitution, report):
        click.echo(line)
    click.echo(report.sentence)
    # Last, so that the table of a promise that is refused is there to read.
    refuse_uncertifiable(constitution, report)


def power_table(constitution: Constitution, report: PowerReport) -> Iterator[str]:
    """Yields the odds of each decision, by principle and jointly, line by line."""
    yield f"{'principle':<24}{'truth':<24}{'pass':>6}{'human':>7}{'fail':>6}"
    for power in report.principles:
        sentence = constitution.principle(power.principle).sentence()
        yield f"{power.principle:<24}{sentence}"
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
