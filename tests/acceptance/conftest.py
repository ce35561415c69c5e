"""Acceptance of a Kubeflow: `make cluster-test`, or `pytest -m cluster`.

It runs against whatever Kubeflow these name, as the product itself finds them:

    SAFESCALE_KFP_HOST                   the API
    KF_PIPELINES_SA_TOKEN_PATH           a token, or the two variables of a Dex login
    SAFESCALE_NAMESPACE                  the namespace (default: safescale)
    SAFESCALE_STORE, AWS_...             the data store, as this machine reaches it
    KUBECONFIG                           the cluster, with rights to look at pods, to
                                         delete those of its own runs, to start pods
    SAFESCALE_IMAGES                     lock file of the images
    SAFESCALE_IMAGE_PREFIX               registry path of the images
    SAFESCALE_PARAMS                     what pods may take, small enough for a node of
                                         two CPUs ("cpu=500m train_cpu=1")
    SAFESCALE_BEAT, SAFESCALE_QUIET      seconds between two looks (2), and in which a
                                         schedule of every minute must have fired (150)
    SAFESCALE_PATIENCE                   seconds in which a run must have ended (1800)

All that is made bears the name `acceptance-<id>`, but for the public table that `data
fetch adult` brings below data/adult/. The end takes away what is no record, and lists
what stays. Each check is one test: `-k champion` runs one alone. docs/kubeflow.md says
whose rights KUBECONFIG should have; `kind.py` makes a Kubeflow to try it on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube import Cluster, reachable_cluster
from plane import Plane, first_line
from table import Line, Table

HOST = "SAFESCALE_KFP_HOST"
STORE = "SAFESCALE_STORE"
SMALL = "cpu=500m train_cpu=1"
_TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts the table; one for all checks of this call."""
    config.stash[_TABLE] = Table(secrets.token_hex(3))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every check of this folder its marker."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            # A run waits for nodes, images and other people's runs.
            item.add_marker(pytest.mark.timeout(3600))
            # What other people's clients warn of is no fault of the plane.
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says what it will do, before it does anything."""
    if not os.environ.get(HOST):
        return []
    name = f"acceptance-{config.stash[_TABLE].id}"
    return [
        f"cluster: {os.environ[HOST]}, store {os.environ.get(STORE, '(none)')}",
        (
            f"makes, all named {name}-...: rows below data/{name}/, up to 14 runs, "
            "three schedules with their runs, a version of the pipeline, probe pods; "
            "fetches data/adult/; deletes pods of its own runs to see them come back; "
            "one run tells whom safescale-notify names"
        ),
    ]


@pytest.fixture(scope="session")
def plane(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Plane]:
    """The Kubeflow under test; all that was made there goes at the end."""
    missing = [name for name in (HOST, STORE) if not os.environ.get(name)]
    if missing:
        sentence = (
            f"{' and '.join(missing)} not set: name the Kubeflow that is to be "
            "accepted; docs/kubeflow.md says how."
        )
        # Who runs all tests of the repository did not ask for a cluster's.
        if "cluster" in request.config.option.markexpr:
            pytest.exit(sentence, returncode=2)
        pytest.skip(sentence)
    options = []
    for option, variable in (
        ("--images", "SAFESCALE_IMAGES"),
        ("--image-prefix", "SAFESCALE_IMAGE_PREFIX"),
    ):
        if os.environ.get(variable):
            value = os.environ[variable]
            path = option == "--images"
            options += [option, str(Path(value).absolute()) if path else value]
    for value in os.environ.get("SAFESCALE_PARAMS", SMALL).split():
        options += ["--param", value]
    table = request.config.stash[_TABLE]
    plane = Plane(
        tmp_path_factory.mktemp("acceptance"),
        os.environ.get("SAFESCALE_NAMESPACE", "safescale"),
        os.environ[STORE],
        tuple(options),
        patience=float(os.environ.get("SAFESCALE_PATIENCE", "1800")),
        beat=float(os.environ.get("SAFESCALE_BEAT", "2")),
        quiet=float(os.environ.get("SAFESCALE_QUIET", "150")),
        id=table.id,
    )
    yield plane
    plane.tidy()
    table.left, table.stays = plane.left, plane.stays


@pytest.fixture(scope="session")
def cluster(plane: Plane) -> Cluster:
    """The Kubernetes below; a check that needs it is skipped without one."""
    found, reason = reachable_cluster(plane)
    if found is None:
        pytest.skip(reason)
    return found


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Any:
    """Takes the command that shows more, should the check fail."""

    def note(command: str) -> None:
        request.node.user_properties.append(("look", command))

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[Any]:
    """Takes a check into the table, with its own sentence."""
    report = yield
    if item.get_closest_marker("cluster") is None:
        return report
    table = item.config.stash[_TABLE]
    if report.when == "call" or report.failed or report.skipped:
        look = dict(item.user_properties).get("look", "")
        sentence = ""
        if call.excinfo is not None:
            sentence = first_line(call.excinfo.value)
        name = item.name.removeprefix("test_").replace("_", " ")
        table.add(Line(name, report.outcome, report.duration, sentence, str(look)))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Ends in the table: one line a check."""
    table = config.stash[_TABLE]
    if table.lines:
        terminalreporter.section(f"acceptance-{table.id}")
        for line in table.text():
            terminalreporter.line(line)
