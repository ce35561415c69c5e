"""From a workload file to what Kubeflow is handed: a pipeline and its parameters.

On a cluster every stage reads the rows by itself, so a source is an `s3://` URI.
A built-in data set is one too once `safescale data fetch` has brought it there:
its digests are known, so nothing has to be read to name it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipelines.compile import SOURCES, compile_train, default_store, defaults
from pipelines.image_lock import Lock
from pipelines.kubeflow.spec import spec_of, titles, uncache
from pipelines.quantities import quantity
from pipelines.workload import Workload
from safescale_ammt.config.sections import SECTIONS, DataConfig, TrainingConfig
from safescale_ammt.config.window import Window
from safescale_ammt.data.catalogue import CATALOGUE
from safescale_ammt.data.fetching import stored_uris
from safescale_ammt.errors import ConfigError, StoreInputError, one_of
from safescale_ammt.files.canonical import digest_json

_FILLED_IN = ("constitution", "source", "sealed_source", "window", *SECTIONS)
_QUANTITIES = ("cpu", "memory", "train_cpu", "train_memory")
"""Parameters that a pod with a wrong one would only fail on."""


@dataclass(frozen=True)
class KubeflowRequest:
    """What a run or a schedule was asked to be.

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
        recurring: the bytes behind the source will be others each time.
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


@dataclass(frozen=True)
class RunSpec:
    """What Kubeflow is handed.

    Attributes:
        name: of the registry that a model goes to; names runs and schedules too.
        spec: the pipeline, with what only Kubernetes reads.
        parameters: values of its parameters.
    """

    name: str
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def titles(self) -> dict[str, str]:
        """Task name -> what people call it, in the order of the graph."""
        return titles(self.spec)

    @property
    def same_rows(self) -> str:
        """Why each run of a schedule judges the rows of the one before; "" = it won't.

        A folder is known by the slash at its end: nothing is read here.
        """
        sealed = str(self.parameters["sealed_source"])
        if not self.parameters["window"]:
            return "no --window is given"
        if sealed and not sealed.endswith("/"):
            return f"data.sealed_source {sealed} stays whole, or lacks the folder's /"
        return ""


@dataclass(frozen=True)
class WorkloadNeeds:
    """What a workload asks of a cluster, for those who start nothing.

    Attributes:
        training: the training section.
        parameters: the pipeline's scalar parameters.
        source: URI of the raw rows; "" if they lie on this machine.
    """

    training: TrainingConfig
    parameters: Mapping[str, str]
    source: str


def asked(order: KubeflowRequest) -> WorkloadNeeds:
    """Returns what a workload asks of a cluster; nothing is contacted.

    Raises:
        ConfigError: a file, key or value that cannot be used.
    """
    workload = _loaded(order)
    spec = spec_of(_compiled(order))
    known = spec["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    values = {n: str(p.get("defaultValue", "")) for n, p in known.items()}
    source = workload.data.source
    if source in CATALOGUE and order.store.startswith("s3://"):
        source = stored_uris(source, order.store)["source"]
    return WorkloadNeeds(
        cast("TrainingConfig", workload.sections["training"]),
        values | _scalars(spec, order.parameters or {}),
        source if source.startswith("s3://") else "",
    )


def prepare(order: KubeflowRequest) -> RunSpec:
    """Checks an order and compiles it.

    Raises:
        ConfigError: a file, key or value, a source that no cluster can read, or days
            that stay the same for a schedule.
        ConstitutionError: a constitution that cannot be compiled.
        StoreInputError: the source cannot be digested from here.
    """
    loaded = _loaded(order)
    if order.recurring:
        _check_rolls(loaded.data)
    workload = located(loaded, order)
    spec = spec_of(_compiled(order))
    if not order.cache:
        uncache(spec)
    values = workload.arguments() | _scalars(spec, order.parameters or {})
    return RunSpec(str(workload.arguments()["registry"]["name"]), spec, values)


@dataclass(frozen=True)
class Compiled:
    """The pipeline in one file, for people who start it by hand.

    Attributes:
        text: the file.
        sources: what it reads unless told otherwise, and why, in a sentence.
    """

    text: str
    sources: str


def compiled(order: KubeflowRequest) -> Compiled:
    """Compiles the pipeline as `safescale compile --config` does.

    Raises:
        ConfigError: a file, key or value that cannot be used.
    """
    workload = _loaded(order)
    values = defaults(workload, default_store(order.store))
    return Compiled(_compiled(order, values), _told(workload, values, order.store))


def _told(workload: Workload, values: Mapping[str, Any], store: str) -> str:
    """Says which sources a file has as its defaults."""
    asked = workload.data.source
    if "source" not in values or not asked:
        what = f"{asked!r} lies on this machine alone" if asked else "none is named"
        return f"The version has no default source ({what}): who starts it names one."
    told = f"The version's default source is {values['source']}"
    if asked in CATALOGUE and not store.startswith("s3://"):
        return f"{told}, since no --store with an s3:// URI is given."
    return f"{told}."


def located(workload: Workload, order: KubeflowRequest) -> Workload:
    """Returns the workload with sources that a cluster can read, and their digest.

    Where the bytes are looked at, the newest days become the days that they are now:
    a file that comes later must not change what was digested.

    Raises:
        ConfigError: a source that lies on this machine alone, or days of one file.
        StoreInputError: no digest was given, and none can be made from here.
    """
    data = workload.data
    found: dict[str, Any] = {
        role: _uri(role, getattr(data, role), order.store)
        for role in SOURCES
        if getattr(data, role) or role == "source"
    }
    if order.recurring:
        found["source_digest"] = ""
    elif not data.source_digest:
        found |= _digested(data, found)
    return workload.replace("data", **found)


def _check_rolls(data: DataConfig) -> None:
    """Refuses a schedule whose every run would be of the same days.

    Raises:
        ConfigError: the window has a fixed end.
    """
    if Window.parse(data.window).end:
        raise ConfigError(
            f"data.window is {data.window!r}, the same days for every run: the second "
            "would judge sealed rows that the first has spent; give a window that "
            "moves on, such as 7d."
        )


def _loaded(order: KubeflowRequest) -> Workload:
    """Reads the workload; a window that was ordered replaces the file's own."""
    workload = Workload.load(
        order.config, constitution=order.constitution, overrides=order.overrides
    )
    if order.window:
        workload = workload.replace("data", window=order.window)
    if workload.data.window and workload.data.source in CATALOGUE:
        raise ConfigError(
            f"data.window is {workload.data.window!r}, but data set "
            f"{workload.data.source} is one file; a window chooses among the dated "
            "files of a folder."
        )
    return workload


def _compiled(
    order: KubeflowRequest, arguments: Mapping[str, Any] | None = None
) -> str:
    options: dict[str, Any] = {"arguments": arguments}
    if order.image_prefix:
        options["image_prefix"] = order.image_prefix
    if order.images:
        options["images"] = Lock.load(order.images)
    return compile_train(**options)


def _uri(role: str, name: str, store: str) -> str:
    """Returns where a source lies for everybody, not for this machine alone.

    Raises:
        ConfigError: only this machine can read it.
    """
    if name.startswith("s3://"):
        return name
    if name in CATALOGUE:
        if store.startswith("s3://"):
            return stored_uris(name, store)[role]
        raise ConfigError(
            f"data.{role} is {name!r}, which no cluster knows: bring it into the "
            f"cluster's object store with `safescale data fetch {name} --store "
            "s3://BUCKET` and give that --store here too."
        )
    what = f"is {name!r}, which lies on this machine alone" if name else "is empty"
    raise ConfigError(
        f"data.{role} {what}: a cluster reads s3://BUCKET/KEY; copy it there, or fetch "
        "a built-in data set with `safescale data fetch adult --store s3://BUCKET`."
    )


def _digested(data: DataConfig, found: Mapping[str, str]) -> dict[str, str]:
    """Returns the digest of the bytes behind the sources, and the days that it is of.

    Raises:
        StoreInputError: they cannot be read from here.
    """
    if data.source in CATALOGUE:
        members = CATALOGUE[data.source].members
        roles = {"source": "source", "sealed_source": "sealed"}
        parts = {roles[r]: {"": m.sha256} for r, m in members.items() if r in found}
        return {"source_digest": digest_json(parts)}
    from safescale_ammt.data.sources import chosen_days, content_digest

    window = Window.parse(data.window)
    try:
        if days := chosen_days(found["source"], window):
            window = days.window
        digest = content_digest(**found, window=window)
    except StoreInputError as error:
        raise StoreInputError(
            f"{str(error).rstrip('.')}; or give the digest of the bytes behind "
            f"{found['source']}: --set data.source_digest=sha256:..."
        ) from None
    return {"source_digest": digest, "window": str(window)}


def _scalars(spec: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Checks scalar parameters against the pipeline's own.

    Raises:
        ConfigError: no such parameter, one that the workload fills in, or a value
            that is no quantity.
    """
    known = spec["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    free = [name for name in known if name not in _FILLED_IN]
    for name in given:
        if name not in free:
            raise ConfigError(
                f"--param {name} is no parameter to set here, {one_of(free)}."
            )
        if name in _QUANTITIES:
            quantity(given[name], f"--param {name}")
    count = given.get("accelerators", "0")
    if not re.fullmatch(r"[0-9]{1,4}", count):
        raise ConfigError(f"--param accelerators is {count!r}, expected 0, 1, 2, ...")
    return dict(given)
