"""The signature of the safety evaluation stage: the only one with the holdout."""

from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
    component,
)

from components import image


@component(base_image=image("evaluate_safety"), install_kfp_package=False)
def evaluate_safety(  # noqa: PLR0917  KFP passes by name
    dataset: Input[Dataset],
    holdout: Input[Dataset],
    architecture: Input[Artifact],
    model: Input[Model],
    constitution: dict,
    safety: dict,
    verdict: Output[Artifact],
    figures: Output[Metrics],
    roc_curve: Output[ClassificationMetrics],
    confusion_matrix: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Judges the model on the sealed rows and reports; it never refuses.

    Args:
        dataset: The development splits.
        holdout: Names the sealed rows, which lie in the store.
        architecture: The search's log, for the report.
        model: The model to judge, with its twin.
        constitution: The constitution.
        safety: Section `safety` of the config.
        verdict: Findings, decision and report; names the evidence in the store.
        figures: Accuracy, and of each finding value, bounds, line and outcome.
        roc_curve: The ROC curve of two classes; empty for more.
        confusion_matrix: True against predicted classes, in rows.
        report: The report as a page.
        summary: Decision and findings as text.
    """
    from safescale_ammt.execution import stage

    with stage("evaluate_safety", verdict.path) as execution:
        from pathlib import Path

        from safescale_ammt.files.canonical import write_json
        from safescale_ammt.stages.evaluate_safety import run

        inputs = (dataset.path, holdout.path, architecture.path, model.path)
        done = run(*inputs, constitution, safety, verdict.path)
        verdict.metadata.update(execution.done(verdict.path, done))
        for name, value in done["metrics"].items():
            figures.log_metric(name, value)
        roc, confusion = done["roc"], done["confusion"]
        if roc:
            roc_curve.log_roc_curve(roc["fpr"], roc["tpr"], roc["threshold"])
        confusion_matrix.log_confusion_matrix(confusion["classes"], confusion["counts"])
        # A Metrics output without a file at its path is never found in the cache.
        for shown in (figures, roc_curve, confusion_matrix):
            write_json(Path(shown.path), shown.metadata)
        Path(report.path).write_bytes(Path(done["report"]).read_bytes())
        Path(summary.path).write_text(done["markdown"])
