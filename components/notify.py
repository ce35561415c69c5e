"""The signature of the exit task: it tells people how the run ended."""

from kfp.dsl import PipelineTaskFinalStatus, component

from components import image


# The gate's image: it has all that this needs, and no sixth is built.
@component(base_image=image("register_model"), install_kfp_package=False)
def notify(run_id: str, on: str, status: PipelineTaskFinalStatus) -> None:
    """Tells by webhook and by file how the run ended; it never fails a run.

    Args:
        run_id: The run's id.
        on: Statuses to tell of, separated by commas.
        status: How the stages ended, from Kubeflow.
    """
    from safescale_ammt.stages.notify import run

    run(run_id, status.state or "", status.error_message or "", on)
