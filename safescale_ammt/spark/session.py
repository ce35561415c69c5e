"""A session of Spark Connect, and what goes wrong with it in one sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from safescale_ammt.errors import EngineError, InputError
from safescale_ammt.library_imports import allow_imports
from safescale_ammt.spark.address import Address
from safescale_ammt.spark.faults import told
from safescale_ammt.spark.local_server import local_server

PATIENCE = 60.0
"""Seconds that a server is waited for, at the start and when it no longer answers."""


@contextmanager
def open_session(
    environ: Mapping[str, str] = os.environ,
    *,
    settings: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Iterator[Any]:
    """Yields a session on the Spark that an environment names.

    What Spark's client raises in the block leaves it as an error of ours (`told`). The
    server lets go of the session, and of what still runs in it, however the block ends.

    Args:
        environ: names the place (`SAFESCALE_SPARK`); a server on this machine and its
            workers get all of it.
        settings: of a server on this machine.
        patience: seconds that a server is waited for.

    Raises:
        InputError: no place, no client, no Java, or another Spark than the client's.
        EngineError: Spark does not answer, or fails at something.
    """
    address = Address.of(environ)
    faults = load_client()
    with warnings.catch_warnings():
        # Of pandas 3, of which nothing here is used; of tries that a sentence tells of.
        warnings.filterwarnings("ignore", module="pyspark")
        if address.uri:
            with connected(address.uri, address.shown, patience, faults) as session:
                yield session
            return
        own = settings or {}
        with (
            local_server(address.cores, environ, own, patience) as uri,
            connected(uri, address.shown, patience, faults) as session,
        ):
            yield session


def load_client() -> tuple[type[Exception], ...]:
    """Imports Spark's client, which needs pandas; returns what it raises.

    Raises:
        InputError: it is not there as a whole.
    """
    allow_imports()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import grpc

            # First of all: the client itself imports what only its extra brings.
            import_module("pyspark.sql.connect.session")
            from pyspark.errors import PySparkException
            from pyspark.logger import PySparkLogger
    except ImportError as error:
        raise InputError(
            f"Spark's client is not installed here ({error.name or 'pyspark'} is "
            "missing): pip install 'safescale-ammt[spark]'; on Kubeflow compile or "
            "submit with data.engine: spark, and prepare_data runs in Spark's image."
        ) from None
    # They print each error with its query, which may hold a value.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True
    return PySparkException, grpc.RpcError


@contextmanager
def connected(
    uri: str, shown: str, patience: float, faults: tuple[type[Exception], ...]
) -> Iterator[Any]:
    """Yields a session of a server, and translates what goes wrong with it."""
    from pyspark.sql.connect.client.retries import DefaultPolicy
    from pyspark.sql.connect.session import SparkSession

    await_answer(uri, shown, patience)
    session = SparkSession.builder.remote(uri).create()
    # As often as waits of 1, 2, 4, 8, 8, ... seconds fit.
    tries = max(1, int(patience / 8) + 3)
    policy = DefaultPolicy(
        max_retries=tries, initial_backoff=1000, max_backoff=8000, backoff_multiplier=2
    )
    session.client.set_retry_policies([policy])
    # A frame that is checkpointed is one of the active session, whoever asked for it
    # (`proto_to_remote_cached_dataframe`, PySpark 4.3).
    active = SparkSession._active_session  # noqa: SLF001 - there is no public way to it
    before, active.session = getattr(active, "session", None), session
    try:
        compare_versions(session.version, shown)
        session.conf.set("spark.sql.session.timeZone", "UTC")
        yield session
    except faults as error:
        raise told(error) from None
    finally:
        active.session = before
        # One that is gone is not waited for again, only to take its leave.
        session.client.set_retry_policies([])
        session.stop()


def await_answer(uri: str, shown: str, patience: float) -> None:
    """Waits until a server of gRPC answers.

    Raises:
        EngineError: none does in time.
    """
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder

    # Else gRPC waits ever longer between two tries, up to two minutes.
    options = [("grpc.max_reconnect_backoff_ms", 2000)]
    channel = DefaultChannelBuilder(uri, options).toChannel()
    try:
        grpc.channel_ready_future(channel).result(timeout=patience)
    except grpc.FutureTimeoutError:
        raise EngineError(
            f"No Spark Connect answers at {shown} within {patience:g} s; look whether "
            "its server runs and this process may reach it (on Kubeflow: safescale "
            "doctor)."
        ) from None
    finally:
        channel.close()


def compare_versions(server: str, shown: str) -> None:
    """Compares a server's Spark with the client's.

    Raises:
        InputError: they differ; functions are packed by one and unpacked by the other.
    """
    from pyspark import __version__ as client

    if server != client:
        raise InputError(
            f"Spark at {shown} is {server}, and its client here {client}; both have to "
            "be of one version."
        )
