"""Options that `submit`, `schedule` and `doctor` share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import (
    FiniteRange,
    with_options,
    workload_options,
)
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.store.uri import STORE

if TYPE_CHECKING:
    from pipelines.kubeflow.api import Kubeflow
    from pipelines.kubeflow.preparation import KubeflowRequest

_SESSION = ("host", "namespace", "token_file", "ca_file")
_WORK = ("config", "constitution", "image_prefix", "images", "window")
_SESSION_OPTIONS = (
    click.option(
        "--host",
        metavar="URL",
        help="Kubeflow Pipelines  [default: SAFESCALE_KFP_HOST, or the cluster's].",
    ),
    click.option(
        "--namespace",
        envvar="SAFESCALE_NAMESPACE",
        default="safescale",
        callback=lambda _context, _option, name: names.namespace(name),
        show_default=True,
        help="Namespace of runs, secrets and rights.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with a bearer token, read anew each time.",
    ),
    click.option(
        "--ca-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Certificates that sign the server's.",
    ),
)
_WORK_OPTIONS = (
    click.option(
        "--param",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        help="Sets a scalar parameter, such as train_memory=8Gi; may be repeated.",
    ),
    click.option(
        "--image-prefix",
        default="",
        help="Registry path of the stages' images  [default: the lock's].",
    ),
    click.option(
        "--images",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Lock file that pins the images by digest.",
    ),
    click.option(
        "--store",
        metavar="URI",
        help="The cluster's object store  [default: SAFESCALE_STORE].",
    ),
    click.option(
        "--service-account",
        "account",
        default="safescale-pipeline",
        callback=lambda _context, _option, name: names.account(name),
        show_default=True,
        help="Service account of the pods.",
    ),
    click.option(
        "--experiment",
        default="safescale",
        show_default=True,
        help="Groups runs in Kubeflow's pages.",
    ),
    click.option(
        "--window",
        default="",
        help="Days of dated files, such as 7d.",
        metavar="TEXT",
    ),
)


def session_options(
    command: Callable[..., Any], patience: float = 60.0
) -> Callable[..., Any]:
    """Adds the options that name a Kubeflow, the credentials and how long to try."""
    option = click.option(
        "--patience",
        type=FiniteRange(min=0),
        default=patience,
        show_default=True,
        metavar="SECONDS",
        help="How long an API that is away is waited for.",
    )
    return with_options((*_SESSION_OPTIONS, option), command)


def work_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say what is to run."""
    return workload_options(with_options(_WORK_OPTIONS, command))


def kubeflow_of(options: Mapping[str, Any]) -> Kubeflow:
    """Opens the session that the options describe; contacts nobody yet."""
    from pipelines.kubeflow.api import Kubeflow
    from pipelines.kubeflow.session import Session
    from safescale_ammt.retry import RetryPolicy

    session = Session.find(os.environ, **{key: options[key] for key in _SESSION})
    return Kubeflow(session, RetryPolicy(total=options["patience"]))


def request_of(
    options: Mapping[str, Any], more: tuple[str, ...], *, cache: bool, **others: Any
) -> KubeflowRequest:
    """Returns the request that the options describe.

    Args:
        options: of `work_options`.
        more: overrides that a command adds; they come last and so win.
        cache: whether finished stages are taken from the cache.
        **others: of `KubeflowRequest`.

    Raises:
        UsageError: a --param that is not of the form NAME=VALUE.
    """
    from pipelines.kubeflow.preparation import KubeflowRequest

    fields = {key: options[key] for key in _WORK}
    fields["overrides"] = (*options["overrides"], *more)
    fields["parameters"] = pairs_of(options)
    return KubeflowRequest(**fields, store=store_of(options), cache=cache, **others)


def pairs_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns what --param sets; the errors of `request_of`."""
    pairs = {}
    for text in options["parameters"]:
        # At the first sign: a value may hold another.
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--param {text!r} is not of the form NAME=VALUE.")
        pairs[name] = value
    return pairs


def store_of(options: Mapping[str, Any]) -> str:
    """Returns the URI of the cluster's store; "" = not known here."""
    return str(options["store"] or os.environ.get(STORE, ""))
