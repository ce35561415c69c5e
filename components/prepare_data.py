"""The signature of the data preparation stage."""

from kfp.dsl import Dataset, Output, component

from components import image


@component(base_image=image("prepare_data"), install_kfp_package=False)
def prepare_data(  # noqa: PLR0917  KFP passes by name
    data: dict,
    source: str,
    sealed_source: str,
    window: str,
    source_digest: str,
    dataset: Output[Dataset],
    holdout: Output[Dataset],
) -> None:
    """Reads raw rows and splits them into a dataset and a sealed holdout.

    Args:
        data: Section `data` of the config.
        source: URI of the raw rows, s3://bucket/key or file:///path.
        sealed_source: URI of an official test file; empty where `data.splits` has a
            fraction `sealed`, which is then split off.
        window: Days of a folder of dated files; empty takes all.
        source_digest: Digest of the raw bytes that the run was made for; empty leaves
            it to the section.
        dataset: The development splits with schema, audit and counts.
        holdout: Names the sealed rows, which lie in the store.
    """
    from safescale_ammt.execution import stage

    with stage("prepare_data", dataset.path) as execution:
        from safescale_ammt.stages.prepare_data import run

        scalars = {"source": source, "sealed_source": sealed_source, "window": window}
        # Last: a result is reused for the very bytes that this names.
        fixed = {"source_digest": source_digest} if source_digest else {}
        summary = run({**data, **scalars, **fixed}, dataset.path, holdout.path)
        dataset.metadata.update(execution.done(dataset.path, summary))
        holdout.metadata.update(execution.done(holdout.path, summary))
