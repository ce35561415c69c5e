"""The signature of the registration stage: the gate."""

from kfp.dsl import Artifact, Input, Markdown, Model, Output, component

from components import image


# `run_id` differs from run to run and is part of the cache's key: no earlier gate can
# stand in for this one.
@component(base_image=image("register_model"), install_kfp_package=False)
def register_model(  # noqa: PLR0917  KFP passes by name
    model: Input[Model],
    verdict: Input[Artifact],
    constitution: dict,
    registry: dict,
    run_id: str,
    version: Output[Artifact],
    summary: Output[Markdown],
) -> None:
    """Registers a model whose verdict allows it; refuses any other.

    Args:
        model: The model that was judged.
        verdict: The verdict about it.
        constitution: The constitution.
        registry: Section `registry` of the config.
        run_id: The run, for the record of how it ended; this task is never cached.
        version: What was registered (champion, pending, or a rehearsal), and where.
        summary: The same as text.
    """
    from safescale_ammt.execution import stage

    with stage("register_model", version.path) as execution:
        from pathlib import Path

        from safescale_ammt.reporting.stage_summaries import version_summary
        from safescale_ammt.stages.register_model import run

        done = run(
            model.path,
            verdict.path,
            constitution,
            registry,
            version.path,
            run_id=run_id,
        )
        version.metadata.update(execution.done(version.path, done))
        Path(summary.path).write_text(version_summary(done))
