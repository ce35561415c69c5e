"""The signature of the promotion: the one step of its own small pipeline."""

from kfp.dsl import Artifact, Markdown, Output, component

from components import image


# The gate's image: it refuses as the gate does, and needs nothing more. `run_id` makes
# its cache key that of one run, as the gate's.
@component(base_image=image("register_model"), install_kfp_package=False)
def promote(  # noqa: PLR0917  KFP passes by name
    version: str,
    registry: str,
    approvals: str,
    run_id: str,
    promotion: Output[Artifact],
    summary: Output[Markdown],
) -> None:
    """Makes a version champion that enough people have approved; refuses any other.

    Args:
        version: Its number, or pending.
        registry: The registered model's name.
        approvals: Signed approvals to add first; may be empty.
        run_id: The run, for the record of how it ended; this task is never cached.
        promotion: Who approved what, and what was waived.
        summary: The same as text.
    """
    from safescale_ammt.execution import stage

    with stage("promote", promotion.path) as execution:
        from pathlib import Path

        from safescale_ammt.reporting.stage_summaries import promotion_summary
        from safescale_ammt.stages.promote import run

        place = Path(promotion.path)
        done = run(version, registry, approvals, place, run_id=run_id)
        promotion.metadata.update(execution.done(place, done))
        Path(summary.path).write_text(promotion_summary(done))
