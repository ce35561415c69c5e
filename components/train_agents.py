"""The signature of the multi-agent training stage."""

from kfp.dsl import (
    Artifact,
    Dataset,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
    component,
)

from components import image


@component(base_image=image("train_agents"), install_kfp_package=False)
def train_agents(  # noqa: PLR0917  KFP passes by name
    dataset: Input[Dataset],
    architecture: Input[Artifact],
    constitution: dict,
    training: dict,
    model: Output[Model],
    figures: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Trains agents under the constitution and merges them into one model, on CPUs.

    Args:
        dataset: The development splits.
        architecture: The genome to train.
        constitution: The constitution.
        training: Section `training` of the config.
        model: Weights, schema, genome and the unconstrained twin.
        figures: Losses, accuracies, violations, multipliers and alarms at its end.
        summary: How the training went and ended, as text.
    """
    from safescale_ammt.execution import stage

    with stage("train_agents", model.path) as execution:
        from pathlib import Path

        from safescale_ammt.files.canonical import write_json
        from safescale_ammt.reporting.stage_summaries import training_summary
        from safescale_ammt.stages.train_agents import run

        done = run(dataset.path, architecture.path, constitution, training, model.path)
        model.metadata.update(execution.done(model.path, done))
        for name, value in done["metrics"].items():
            figures.log_metric(name, value)
        # A Metrics output without a file at its path is never found in the cache.
        write_json(Path(figures.path), figures.metadata)
        Path(summary.path).write_text(training_summary(done, Path(model.path)))
