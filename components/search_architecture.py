"""The signature of the architecture search stage."""

from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Output, component

from components import image


# Without the holdout, as training: whoever chooses or fits a model must not see it.
@component(base_image=image("search_architecture"), install_kfp_package=False)
def search_architecture(  # noqa: PLR0917  KFP passes by name
    dataset: Input[Dataset],
    constitution: dict,
    search: dict,
    training: dict,
    architecture: Output[Artifact],
    figures: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Checks that the promise can be certified, then searches an architecture.

    Args:
        dataset: The development splits.
        constitution: The constitution.
        search: Section `search` of the config.
        training: Section `training`: candidates train under it, for less long.
        architecture: The winning genome, the search log and the power check.
        figures: Loss, violation and size of the winner, candidates and steps spent.
        summary: What can be certified and what was tried, as text.
    """
    from safescale_ammt.execution import stage

    with stage("search_architecture", architecture.path) as execution:
        from pathlib import Path

        from safescale_ammt.files.canonical import write_json
        from safescale_ammt.stages.search_architecture import run

        done = run(dataset.path, constitution, search, training, architecture.path)
        architecture.metadata.update(execution.done(architecture.path, done))
        for name, value in done["metrics"].items():
            figures.log_metric(name, value)
        # A Metrics output without a file at its path is never found in the cache.
        write_json(Path(figures.path), figures.metadata)
        Path(summary.path).write_text(done["markdown"])
