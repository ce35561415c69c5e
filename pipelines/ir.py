"""The one reader and editor of a compiled pipeline.

KFP compiles to an *intermediate representation* (IR) of two YAML documents: the
graph (`PipelineSpec`) and what only one platform reads of it (`PlatformSpec`). KFP
offers no way to change either, so every edit that we need is here, in KFP's words:
a *component* describes a node, an *executor* says in which container it runs, a
*task* is a component in a graph, and a graph may hold a component that is a graph.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import yaml

from components import IMAGE_PREFIX, REUSABLE, SPARK
from pipelines.quantities import quantity

BATTERY_HOURS = 6
"""How long evaluate_safety may run where batteries attack images; an hour elsewhere."""
_IMAGE = re.compile(rf"^( +image: ){IMAGE_PREFIX}/(\w+):(\S+)$", re.MULTILINE)
_PINNED = re.compile(r"(?P<name>[^@\s]+/(?P<stage>\w+))@(?P<digest>sha256:\w{64})")
_CHANNEL = re.compile(r"\{\{\$\.inputs\.parameters\['(pipelinechannel--(\w+))'\]\}\}")
"""How the IR spells "the value of this pipeline parameter" inside a string."""
RESOURCES = "resources_"
"""What the names of parameters begin with that say how large pods are."""
READER = "prepare-data"
"""The task that reads the rows."""
_ALWAYS = "ALL_UPSTREAM_TASKS_COMPLETED"
"""The trigger of a task that runs however those before it end."""


@dataclass(frozen=True)
class Limit:
    """A limit as the IR spells it, and the --param that sets it ("" = none)."""

    text: str
    parameter: str

    @property
    def value(self) -> float:
        """CPUs or bytes."""
        return quantity(self.text, self.parameter or "a limit in the pipeline")


@dataclass(frozen=True)
class ContainerLimits:
    """CPUs and memory that a container may take."""

    cpu: Limit
    memory: Limit


@dataclass(frozen=True)
class PinnedImage:
    """An image by digest: registry path with the stage's name, and `sha256:...`."""

    name: str
    digest: str


@dataclass(frozen=True)
class CompiledPipeline:
    """A compiled pipeline, parsed; its editors change it in place.

    Attributes:
        graph: the first document.
        platform: the second; empty where the pipeline has none.
    """

    graph: dict[str, Any]
    platform: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what the compiler wrote."""
        # libyaml's reader is equally safe and eight times as fast, where it is there.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        graph, *platform = yaml.load_all(text, loader)
        return cls(graph, platform[0] if platform else {})

    @classmethod
    def from_api(cls, spec: Mapping[str, Any]) -> Self:
        """Reads a spec as KFP's API and `PipelineVersion` objects give it."""
        # Older versions on a server hold the graph alone.
        graph = spec.get("pipeline_spec") or spec.get("pipelineSpec") or dict(spec)
        platform = spec.get("platform_spec") or spec.get("platformSpec") or {}
        return cls(graph, platform)

    def to_yaml(self) -> str:
        """Returns the two documents as the compiler orders them."""
        # Sorted as KFP's compiler sorts: equal pipelines are equal texts.
        return yaml.safe_dump_all(self._documents, sort_keys=True)

    def to_local_yaml(self) -> str:
        """Returns the same documents for a program on this machine.

        By libyaml's writer, which ends lines elsewhere and takes a sixth of the time.
        """
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        return str(yaml.dump_all(self._documents, Dumper=dumper))

    def to_api(self) -> dict[str, Any]:
        """Returns the form that KFP's API takes and gives."""
        return {"pipeline_spec": self.graph, "platform_spec": self.platform}

    @property
    def _documents(self) -> list[dict[str, Any]]:
        return [self.graph, *([self.platform] if self.platform else [])]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.graph["pipelineInfo"]["name"])

    @property
    def parameters(self) -> Mapping[str, dict[str, Any]]:
        """Parameter name -> type, default and description."""
        inputs: Mapping[str, Any] = self.graph["root"].get("inputDefinitions", {})
        return dict(inputs.get("parameters", {}))

    def parameter(self, name: str) -> str:
        """Returns a parameter's name for what a person calls it: `cpu`, too."""
        return name if name in self.parameters else f"{RESOURCES}{name}"

    @property
    def executors(self) -> Mapping[str, dict[str, Any]]:
        """Executor label -> what it runs."""
        return dict(self.graph["deploymentSpec"]["executors"])

    @property
    def kubernetes(self) -> Mapping[str, dict[str, Any]]:
        """Executor label -> what Kubernetes alone reads: secrets, deadline, labels."""
        platforms: Mapping[str, Any] = self.platform["platforms"]
        return dict(platforms["kubernetes"]["deploymentSpec"]["executors"])

    @property
    def titles(self) -> dict[str, str]:
        """Task name -> title in the order of the graph, nested graphs left out."""
        return {
            name: str(task.get("taskInfo", {}).get("name") or name)
            for name, task, component in self._tasks()
            if "dag" not in component
        }

    @property
    def reads_rows(self) -> bool:
        """Whether a task of it reads rows; a promotion has none that may be reused."""
        return READER in self.titles

    @property
    def pinned_images(self) -> dict[str, PinnedImage]:
        """Stage -> its image, where that is named by digest."""
        images = (e["container"]["image"] for e in self.executors.values())
        matches = filter(None, map(_PINNED.fullmatch, images))
        return {m["stage"]: PinnedImage(m["name"], m["digest"]) for m in matches}

    def set_defaults(self, arguments: Mapping[str, Any]) -> None:
        """Makes values the parameters' defaults: Kubeflow's form is filled in."""
        for name, value in arguments.items():
            self.parameters[name].update(defaultValue=value, isOptional=True)

    def reuse(self, source_digest: str, stages: Collection[str]) -> None:
        """Lets KFP take finished stages from its cache; as compiled it takes none.

        The digest becomes a constant of the task that reads the rows: a copy of the
        run with other rows is refused, whatever its form says.

        Args:
            source_digest: of the bytes behind the sources; "" = not known, so that
                the rows are read anew, and so is all that is made of them.
            stages: those whose code is known: by their image, or by the caller.
        """
        known = {stage.replace("_", "-") for stage in {*REUSABLE} & {*stages}}
        known |= {READER} if SPARK in stages else set()
        if not source_digest:
            known.discard(READER)
        for name, task, _ in self._tasks():
            if name == READER and source_digest:
                constant = {"runtimeValue": {"constant": source_digest}}
                task["inputs"]["parameters"]["source_digest"] = constant
            if name in known:
                task["cachingOptions"] = {"enableCache": True}

    def drop_retries(self) -> None:
        """Takes retries out: KFP's local runner sleeps between them.

        A failure shows at once; a second `safescale run` resumes from it.
        """
        for _, task, _ in self._tasks():
            task.pop("retryPolicy", None)

    def wait_small(self, task: str) -> None:
        """Gives a task that only waits the resources of a small stage.

        Its inputs keep their names: only where they come from changes.
        """
        small = {"train_cpu": "cpu", "train_memory": "memory"}
        for name, found, _ in self._tasks():
            if name != task:
                continue
            inputs = found["inputs"]["parameters"]
            for large, least in small.items():
                source = f"pipelinechannel--{RESOURCES}{least}"
                inputs[f"pipelinechannel--{RESOURCES}{large}"] = {
                    "componentInputParameter": source
                }
            # What it would reserve, the TrainJob's own pods reserve.
            inputs[f"pipelinechannel--{RESOURCES}accelerators"] = {
                "runtimeValue": {"constant": "0"}
            }

    def drop_exit_tasks(self) -> None:
        """Takes the tasks out that run however the others end."""
        # KFP allows an exit handler at the top alone, so no nested graph holds one.
        tasks = self.graph["root"]["dag"]["tasks"]
        for name, task in tuple(tasks.items()):
            if task.get("triggerPolicy", {}).get("strategy") == _ALWAYS:
                del tasks[name]

    def set_run_id(self, run: str) -> None:
        """Puts a run's id where a constant asks Kubeflow for the one it draws."""
        # KFP takes a second to import, and most readers of a pipeline have no need.
        from kfp import dsl

        def replace(node: Any) -> None:
            if isinstance(node, dict):
                if node.get("constant") == dsl.PIPELINE_JOB_ID_PLACEHOLDER:
                    node["constant"] = run
                node = list(node.values())
            for child in node if isinstance(node, list) else ():
                replace(child)

        replace(self.graph)

    def set_images(self, images: Mapping[str, str]) -> None:
        """Replaces image references: reference -> the new one."""
        for executor in self.executors.values():
            image = executor["container"]["image"]
            executor["container"]["image"] = images[image]

    def swap_image(self, old: str, new: str) -> None:
        """Runs what ran in one image in another."""
        for executor in self.executors.values():
            if executor["container"]["image"] == old:
                executor["container"]["image"] = new

    def set_hours(self, executor: str, hours: int) -> None:
        """Lets the pods of an executor run for so long."""
        self.kubernetes[executor]["activeDeadlineSeconds"] = str(hours * 3600)

    def take_limits(self, arguments: Mapping[str, Any]) -> dict[str, ContainerLimits]:
        """Takes the limits out of the graph, and a task's inputs that only they need.

        KFP's cache key holds a task's inputs, and its result is the same with more
        memory.

        Args:
            arguments: values of the pipeline's parameters.

        Returns:
            Executor label -> its limits.
        """
        channels: set[str] = set()

        def limit(text: str) -> Limit:
            match = _CHANNEL.fullmatch(text)
            if match is None:
                return Limit(text, "")
            name = match[2]
            value = arguments.get(name) or self.parameters[name]["defaultValue"]
            return Limit(str(value), name.removeprefix(RESOURCES))

        limits = {}
        for label, executor in self.executors.items():
            resources = executor["container"].pop("resources")
            channels |= {c for c, _ in _CHANNEL.findall(json.dumps(resources))}
            cpu, memory = (
                resources["resourceCpuLimit"],
                resources["resourceMemoryLimit"],
            )
            limits[label] = ContainerLimits(limit(cpu), limit(memory))
        for _, task, component in self._tasks():
            # A graph only hands parameters down; it has no cache key.
            if "dag" in component:
                continue
            inputs = task.get("inputs", {}).get("parameters", {})
            for name, source in tuple(inputs.items()):
                # An input is a limit's own channel, or a constant text that names one.
                constant = source.get("runtimeValue", {}).get("constant")
                match = (
                    _CHANNEL.fullmatch(constant) if isinstance(constant, str) else None
                )
                if name in channels or (match and match[1] in channels):
                    del inputs[name]
        return limits

    def _tasks(self) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
        """Yields name, task and component of every task, in the order they run."""
        components = self.graph.get("components", {})

        def walk(
            dag: Mapping[str, Any],
        ) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
            waiting = dict(dag.get("tasks", {}))
            # KFP writes the tasks by name, not in the order in which they run.
            while waiting:
                name = next(
                    (
                        name
                        for name, task in waiting.items()
                        if not waiting.keys() & set(task.get("dependentTasks", ()))
                    ),
                    next(iter(waiting)),  # a cycle: KFP would not have compiled it
                )
                task = waiting.pop(name)
                component = components.get(task["componentRef"]["name"], {})
                yield name, task, component
                yield from walk(component.get("dag", {}))

        yield from walk(self.graph["root"]["dag"])


def on_spark(data: Mapping[str, Any]) -> bool:
    """Says whether a workload's section `data` has its rows prepared on Spark."""
    return data.get("engine") == "spark"


def by_slopes(constitution: Mapping[str, Any]) -> bool:
    """Says whether the judge follows slopes, for a battery on images, by torch.

    Args:
        constitution: as it travels, with every default filled in.
    """
    constraints = (p["constraint"] for p in constitution.get("principles", ()))
    return any("tier" in c.get("threat", {}) for c in constraints)


def name_images(text: str, reference: Callable[[str, str], str]) -> str:
    """Names every stage's image anew in the text of a compiled pipeline.

    The text is edited, not parsed and written again: without a lock or a prefix the
    compiler's own bytes stay, which the golden file is compared with.

    Args:
        text: as the compiler wrote it.
        reference: stage and tag -> reference.
    """
    return _IMAGE.sub(lambda match: match[1] + reference(match[2], match[3]), text)
