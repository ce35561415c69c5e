"""Real stores for all tests: a folder, and a SeaweedFS on loopback."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import children
import measured
import pytest
import thread_deaths
from coverage import Coverage

from safescale_ammt.store.base import Store
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.uri import open_store

# Small nets on several threads wait for each other, which takes CPU seconds, the more
# so beside another worker. NumPy and torch read these when they are imported, in this
# process by a test's file, and in the processes that it starts.
for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what not every machine has to be asked for."""
    parser.addoption(
        "--tpu", action="store_true", help="run the tests of devices on a TPU too"
    )


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_the_foreground() -> Iterator[None]:
    """Signals do in a test what they do at a prompt, whoever started pytest."""
    with children.foreground():
        yield


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    children.end_all()


@pytest.fixture(autouse=True)
def _who_waits_for_a_dead_thread_is_told() -> Iterator[None]:
    with thread_deaths.end_the_test():
        yield


@pytest.fixture(autouse=True)
def _coverage_looks_at_first(request: pytest.FixtureRequest) -> Iterator[None]:
    with measured.children_at_first(str(request.path)), measured.at_first():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Has one worker rewrite a file's asserts, which the others read when it is done.

    In a fresh checkout that, and compiling what is imported, is most of collecting.
    """
    if not isinstance(collector, pytest.Module):
        return (yield)
    with collector.path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


# Innermost: before pytest-cov, which is another wrapper of it, puts all files together.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Leaves to coverage what it can read; workers may still write, so at the end."""
    result = yield
    running = Coverage.current()
    if running and not hasattr(session.config, "workerinput"):
        measured.remove_torn(Path(running.config.data_file).absolute())
    return result


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """One SeaweedFS for the session (each xdist worker has its own)."""
    with EmbeddedStore(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_environ(s3_server: EmbeddedStore) -> dict[str, str]:
    """The environment that names that server, with `SAFESCALE_STORE`."""
    return s3_server.environ


@pytest.fixture
def s3_store(s3_server: EmbeddedStore) -> Store:
    """An empty store in that server: a prefix that no other test uses."""
    uri = f"{s3_server.uri}/{uuid.uuid4().hex}"
    return open_store(uri, environ=s3_server.environ)


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of either kind: the contract is one."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found
