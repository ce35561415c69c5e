"""The promote pipeline: one step, run when people have decided.

KFP 2.17 has no step that waits for a person, and a pod that waited would hold its place
for days. So a run ends with a version that is pending, people sign, and this pipeline
is the second run: from Kubeflow's form, from CI when approvals were merged, or by
`safescale submit --pipeline promote`. It decides nothing. Who may decide, and how many
it takes, stands in the version's own constitution.
"""

from kfp import dsl

from components.promote import promote as promote_step
from pipelines.pods import TaskLimits, bounded, with_registry, with_store
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.releasing.versions import PENDING


@dsl.pipeline(
    name="safescale-promote",
    display_name="SAFESCALE-AMMT: promote",
    description=(
        "Makes a pending version champion once its approvers have signed. Service "
        f"account: {names.ACCOUNT} (with the field left empty a run fails, and no page "
        "says why)."
    ),
)
def promote(
    registry: str,
    version: str = PENDING,
    approvals: str = "",
    resources_cpu: str = "1",
    resources_memory: str = "2Gi",
) -> None:
    """Promotes one version.

    Args:
        registry: Name of the registered model.
        version: Its number; pending is the version that the approvals are about,
            without any the only pending one.
        approvals: What `safescale approve --out FILE` wrote: one approval, several
            behind each other, or the s3:// URI of such a file. Empty where approvers
            have signed into the registry. Never a private key.
        resources_cpu: CPUs of the step.
        resources_memory: Memory of the step, which derives the verdict again.
    """
    # As the gate: never cached, no retry of ours; a lost pod is made again by Argo's
    # own defaults, and the step does its work once for one run.
    limits = TaskLimits(resources_cpu, resources_memory, hours=1, retries=0)
    step = promote_step(
        version=version,
        registry=registry,
        approvals=approvals,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    with_store(bounded(step, "Promote", limits), names.STORE_SECRET)
    with_registry(step)
