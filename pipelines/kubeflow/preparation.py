"""From a workload file to what Kubeflow gets: a pipeline and its parameters.

On a cluster every stage reads the rows by itself, so a source is an `s3://` URI.
A built-in data set is one too once `safescale data fetch` has brought it there:
its digests are known, so nothing has to be read to name it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.compile import compile_train, fit_backend
from pipelines.image_lock import Lock
from pipelines.ir import RESOURCES, CompiledPipeline, by_slopes, on_spark
from pipelines.kubeflow.revision import Revision
from pipelines.own_code import with_code
from pipelines.parameter_sizes import check_sizes
from pipelines.quantities import quantity
from pipelines.sources import (
    default_parameters,
    default_store,
    resolve_for_cluster,
)
from pipelines.workload import Workload
from safescale_ammt.config.sections import SECTIONS, TrainingConfig
from safescale_ammt.config.window import Window
from safescale_ammt.errors import ConfigError, one_of
from safescale_ammt.reading.catalogue import CATALOGUE
from safescale_ammt.reading.fetching import stored_uris

_FILLED_IN = (
    *("constitution", "source", "sealed_source", "window", *SECTIONS),
    *("version", "approvals"),
)
"""Parameters that the workload file, or a promotion, fills in."""
_QUANTITIES = tuple(
    RESOURCES + name for name in ("cpu", "memory", "train_cpu", "train_memory")
)
"""Parameters that a pod with a wrong one would only fail on."""


def why_idle(training: TrainingConfig, *, of_step: bool) -> str:
    """Says why a training leaves an accelerator idle; "" = its nets train on it.

    Args:
        training: the section.
        of_step: whether the pipeline's own step has reserved it, and not a pod of a
            TrainJob.
    """
    if of_step and training.backend == "trainjob":
        return "the pods of the TrainJob train, and the step waits for them"
    if training.learner == "trees":
        return "boosted trees train on CPUs"
    return "training.device is cpu" if training.device == "cpu" else ""


@dataclass(frozen=True)
class KubeflowRequest:
    """What a run or a schedule shall be.

    Attributes:
        config: the workload file.
        constitution: a constitution that replaces the workload's own.
        overrides: `section.key=value`.
        parameters: scalar parameters of the pipeline, such as train_memory=8Gi.
        image_prefix: registry path of the images.
        images: lock file that pins their digests.
        store: URI of the store that built-in data sets lie in; "" = none.
        window: days of a folder of dated files.
        cache: whether finished stages are taken from the cache.
        recurring: whether the bytes behind the source will be others each time.
    """

    config: Path
    constitution: Path | None = None
    overrides: tuple[str, ...] = ()
    parameters: Mapping[str, str] | None = None
    image_prefix: str = ""
    images: Path | None = None
    store: str = ""
    window: str = ""
    cache: bool = True
    recurring: bool = False

    @property
    def idle_accelerators(self) -> str:
        """What the request reserves and its training does not use; "" = nothing."""
        given = {
            n.removeprefix(RESOURCES): v for n, v in (self.parameters or {}).items()
        }
        count = given.get("accelerators", "0")
        if not count.isdigit() or not int(count):
            return ""
        why = why_idle(self.workload().training, of_step=True)
        reserves = f"--param accelerators={count} reserves what stays idle"
        return f"{reserves}: {why}" if why else ""

    def workload(self) -> Workload:
        """Reads the workload, and the code it names; the window is the request's.

        Raises:
            ConfigError: a file, key or value that cannot be used, code that is not
                there, or days of a data set that is one file.
        """
        workload = Workload.load(
            self.config, constitution=self.constitution, overrides=self.overrides
        )
        workload = with_code(workload, self.config.parent)
        if self.window:
            workload = workload.replace("data", window=self.window)
        if workload.data.window and workload.data.source in CATALOGUE:
            raise ConfigError(
                f"data.window is {workload.data.window!r}, but data set "
                f"{workload.data.source} is one file; a window chooses among the dated "
                "files of a folder."
            )
        return workload

    def compile(self, values: Mapping[str, Any] | None = None) -> str:
        """Compiles the pipeline with the request's images.

        Args:
            values: of the parameters; `data` and `constitution` say whether an image
                is Spark's, or has torch.

        Raises:
            ConfigError: the lock or the prefix cannot be used.
        """
        return compile_train(
            image_prefix=self.image_prefix or None,
            images=Lock.load(self.images) if self.images else None,
            spark=on_spark((values or {}).get("data", {})),
            slopes=by_slopes((values or {}).get("constitution", {})),
        )


@dataclass(frozen=True)
class RunSpec:
    """What Kubeflow gets.

    Attributes:
        name: of the registry that a model goes to; names runs and schedules too.
        pipeline: with what only Kubernetes reads.
        parameters: values of its parameters.
        description: what it was made of, in a line for people.
    """

    name: str
    pipeline: CompiledPipeline
    parameters: Mapping[str, Any]
    description: str = ""

    @property
    def anew(self) -> str:
        """Why no finished stage is reused; "" = some may be, or none shall."""
        if self.pipeline.pinned_images or not self.pipeline.reads_rows:
            return ""
        return (
            "every stage runs anew: other code may bear an image's tag tomorrow; "
            "with --images LOCK finished stages are reused"
        )

    @property
    def same_rows(self) -> str:
        """Why each run of a schedule judges the rows of the one before; "" = it won't.

        A folder is known by the slash at its end: nothing is read here.
        """
        # The first run spends the sealed rows: the ledger counts each use, and a later
        # verdict on them says `spent`.
        sealed = str(self.parameters["sealed_source"])
        if not self.parameters["window"]:
            return "no --window is given"
        if sealed and not sealed.endswith("/"):
            return f"data.sealed_source {sealed} stays whole, or lacks the folder's /"
        return ""


def prepare(request: KubeflowRequest) -> RunSpec:
    """Checks a request and compiles it.

    Raises:
        ConfigError: a file, key or value, values that are too large in sum, a source
            that no cluster can read, or days that stay the same for a schedule.
        ConstitutionError: a constitution that cannot be compiled.
        StoreInputError: the source cannot be digested from here.
    """
    workload = request.workload()
    if request.recurring and Window.parse(workload.data.window).end:
        raise ConfigError(
            f"data.window is {workload.data.window!r}, the same days for every run: "
            "the second would judge sealed rows that the first has spent; give a "
            "window that moves on, such as 7d."
        )
    workload = resolve_for_cluster(workload, request.store, recurring=request.recurring)
    pipeline = CompiledPipeline.parse(request.compile(workload.arguments()))
    if request.cache:
        # In the spec itself: KFP's API has no switch beside it.
        pipeline.reuse(workload.data.source_digest, pipeline.pinned_images)
    arguments = workload.arguments() | scalars(pipeline, request.parameters or {})
    fit_backend(pipeline, arguments)
    check_sizes(pipeline, arguments)
    return RunSpec(
        str(arguments["registry"]["name"]),
        pipeline,
        arguments,
        describe(workload),
    )


def describe(workload: Workload) -> str:
    """Says in one line of at most 255 characters what a run is made of."""
    constitution = workload.constitution
    # KFP's database has 255 characters for a run's description, and MySQL refuses more:
    # all but the author's two words is bounded.
    head = f"{constitution.id[:40]} {constitution.version[:20]}"
    return (
        f"Constitution {head}, {constitution.digest}; training "
        f"{workload.training.backend}; SAFESCALE-AMMT {Revision.find().version}"
    )


@dataclass(frozen=True)
class WorkloadNeeds:
    """What a workload needs of a cluster, for those who start nothing.

    Attributes:
        training: the training section.
        parameters: the pipeline's scalar parameters, as `--param` names them.
        source: URI of the raw rows; "" if they lie on this machine.
        spark: whether they are prepared on Spark.
    """

    training: TrainingConfig
    parameters: Mapping[str, str]
    source: str
    spark: bool


def needs_of(request: KubeflowRequest) -> WorkloadNeeds:
    """Returns what a workload needs of a cluster; nothing is contacted.

    Raises:
        ConfigError: a file, key or value that cannot be used.
    """
    workload = request.workload()
    pipeline = CompiledPipeline.parse(request.compile())
    values = {n: str(p.get("defaultValue", "")) for n, p in pipeline.parameters.items()}
    values |= scalars(pipeline, request.parameters or {})
    source = workload.data.source
    # The store is not looked at: a malformed one is for the doctor to find, by name.
    if source in CATALOGUE and request.store.startswith("s3://"):
        source = stored_uris(source, request.store)["source"]
    return WorkloadNeeds(
        workload.training,
        {name.removeprefix(RESOURCES): value for name, value in values.items()},
        source if source.startswith("s3://") else "",
        on_spark(workload.arguments()["data"]),
    )


@dataclass(frozen=True)
class VersionFile:
    """The pipeline in one file, for people who start it by hand.

    Attributes:
        text: the file.
        sources: what it reads by default, and why, in a sentence.
        description: what its defaults are made of, in a line for people.
    """

    text: str
    sources: str
    description: str


def version_file(request: KubeflowRequest) -> VersionFile:
    """Compiles the pipeline as `safescale compile --config` does.

    Raises:
        ConfigError: a file, key or value that cannot be used.
    """
    workload = request.workload()
    # Nothing is digested here: who starts the version later reads what lies there then.
    values = default_parameters(workload, default_store(request.store))
    name = workload.data.source
    if "source" not in values or not name:
        what = f"{name!r} lies on this machine alone" if name else "none is named"
        sentence = (
            f"The version has no default source ({what}): who starts it names one."
        )
    else:
        sentence = f"The version's default source is {values['source']}"
        unknown_store = name in CATALOGUE and not request.store.startswith("s3://")
        reason = (
            ", since no --store with an s3:// URI is given" if unknown_store else ""
        )
        sentence = f"{sentence}{reason}."
    pipeline = CompiledPipeline.parse(request.compile(values))
    pipeline.set_defaults(values | scalars(pipeline, request.parameters or {}))
    check_sizes(pipeline, {})
    return VersionFile(pipeline.to_yaml(), sentence, describe(workload))


def scalars(pipeline: CompiledPipeline, values: Mapping[str, str]) -> dict[str, str]:
    """Checks scalar parameters against the pipeline's own.

    Raises:
        ConfigError: no such parameter, one that the workload fills in, or a value
            that is no quantity.
    """
    # KFP refuses an unknown name too, but takes a section, and one that was given as a
    # parameter would replace the workload's without its checks.
    names = [n for n in pipeline.parameters if n not in _FILLED_IN]
    checked = {}
    for name, value in values.items():
        full = pipeline.parameter(name)
        if full not in names:
            known = [name.removeprefix(RESOURCES) for name in names]
            raise ConfigError(
                f"--param {name} is no parameter to set here, {one_of(known, name)}."
            )
        if full in _QUANTITIES:
            quantity(value, f"--param {name}")
        checked[full] = value
    # The parameter is text, so KFP would take "two", and only the pod would fail.
    count = checked.get(f"{RESOURCES}accelerators", "0")
    if not re.fullmatch(r"[0-9]{1,4}", count):
        raise ConfigError(f"--param accelerators is {count!r}, expected 0, 1, 2, ...")
    return checked
