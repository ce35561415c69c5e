"""`safescale constitution`: can these data certify what is promised?"""

from __future__ import annotations

from pathlib import Path

import click


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
    from safescale_ammt.power import power_check, refuse_uncertifiable

    from safescale_ammt.artifacts import verify
    from safescale_ammt.constitution import Constitution
    from safescale_ammt.counts import Counts

    rules = Constitution.load(file)
    verify(dataset, "dataset")
    counts = Counts.load(dataset)
    report = power_check(rules, counts, draws=draws, seed=seed)
    for line in power_table(report.to_dict()):
        click.echo(line)
    click.echo(report.sentence)
    refuse_uncertifiable(rules, report)
