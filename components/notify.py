"""The signature of the exit task: it tells people how the run ended."""

from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus, component

from components import image


# The gate's image: it has all that this needs, and no sixth is built.
@component(base_image=image("register_model"), install_kfp_package=False)
def notify(
    run_id: str, on: str, status: PipelineTaskFinalStatus, outcome: Output[Markdown]
) -> None:
    """Tells by webhook, by file and by a page how the run ended; it never fails a run.

    Args:
        run_id: The run's id.
        on: Statuses to tell of, separated by commas.
        status: How the stages ended, from Kubeflow.
        outcome: How the run ended, and why; at the root of the run's graph.
    """
    from pathlib import Path

    from safescale_ammt.stages.notify import run

    message = status.error_message or ""
    run(run_id, status.state or "", message, on, page=Path(outcome.path))
