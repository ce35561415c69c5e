"""What every task of our pipelines has in common: its limits, its user, its secrets."""

from __future__ import annotations

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl import pipeline_channel

from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.store.environment import (
    SECRET_KEYS,
    own_variable,
    registry_variable,
)
from safescale_ammt.store.uri import STORE

USER = 10001
"""Unprivileged user of every pod, as in the images."""
GROUP = 0
"""Its group: what the images let their user write is writable by group 0."""
SCRATCH = "/tmp"  # noqa: S108  the pod's own, empty at its start
PART_OF = "safescale-ammt"


@dataclass(frozen=True)
class TaskLimits:
    """What a task may take.

    Attributes:
        cpu, memory: request and limit alike, so that nobody takes what a pod counts
            on; it is Burstable all the same, for KFP's and Argo's own containers.
        hours: the pod is stopped after this time.
        retries: further pods if one is lost, 5 s apart and doubling.
        scratch: what its /tmp may hold, on the node's disk.
    """

    cpu: str | pipeline_channel.PipelineChannel
    memory: str | pipeline_channel.PipelineChannel
    hours: int
    retries: int
    scratch: str = "10Gi"


def bounded(task: dsl.PipelineTask, title: str, limits: TaskLimits) -> dsl.PipelineTask:
    """Gives a task its name, limits, timeout, retries and what its pod may do.

    KFP itself drops all capabilities, forbids privilege escalation and sets the
    runtime's seccomp profile; it has no setter for ephemeral storage, which the
    namespace's LimitRange bounds.
    """
    task.set_display_name(title)
    register_channels(task, limits.cpu, limits.memory)
    task.set_cpu_request(limits.cpu).set_cpu_limit(limits.cpu)
    task.set_memory_request(limits.memory).set_memory_limit(limits.memory)
    if limits.retries:
        # As KFP ships Argo, a lost pod is made again, never a program that failed; and
        # that one's failure is told only once the wait is over, so it is short.
        task.set_retry(limits.retries, backoff_duration="5s", backoff_factor=2.0)
    kubernetes.set_timeout(task, limits.hours * 3600)
    kubernetes.set_security_context(
        task, run_as_user=USER, run_as_group=GROUP, run_as_non_root=True
    )
    # For clusters that make the root file system read-only.
    kubernetes.empty_dir_mount(task, "tmp", SCRATCH, size_limit=limits.scratch)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", PART_OF)
    name = title.lower().replace(" ", "-")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", name)
    # KFP's cache key holds URIs and the image's name, and a compiled file knows neither
    # the bytes behind the one nor, of a tag, those behind the other: who knows both
    # switches it on, see `CompiledPipeline.reuse`.
    task.set_caching_options(enable_caching=False)
    return task


def register_channels(task: dsl.PipelineTask, *values: object) -> None:
    """Declares to KFP which parameters a task's resources need."""
    # KFP's own setters do not (2.17), and a group's inputs then lack them: the tasks in
    # it would ask for parameters that nobody hands down.
    channels = [v for v in values if isinstance(v, pipeline_channel.PipelineChannel)]
    task.register_pipeline_channels(channels)


def with_store(
    task: dsl.PipelineTask, secret: str, prefix: str = ""
) -> dsl.PipelineTask:
    """Gives a task the store of data and ledger, of datasets, or of a hand-over.

    Args:
        task: that mounts the secret.
        secret: its name.
        prefix: of variables of its own; "" = it is the task's first store.
    """
    # Every key is optional to Kubernetes: where a role stands in for static keys the
    # secret has none, and what is really missing the stage says in a sentence, where a
    # pod that waits for a secret only waits.
    keys = {key: own_variable(prefix, key) if prefix else key for key in SECRET_KEYS}
    return kubernetes.use_secret_as_env(
        task, secret_name=secret, secret_key_to_env=keys, optional=True
    )


def with_registry(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Gives a task the registry's key, which gates alone hold."""
    keys = {key: registry_variable(key) for key in SECRET_KEYS}
    # The registry's URI is the one key that is not optional: without it the stage
    # would take the other store for the registry, as on a laptop. The pod waits.
    uri = {STORE: keys.pop(STORE)}
    name = names.REGISTRY_SECRET
    kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env=uri)
    return kubernetes.use_secret_as_env(
        task, secret_name=name, secret_key_to_env=keys, optional=True
    )
