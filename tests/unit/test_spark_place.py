"""Where Spark is, without a Spark: what an environment names, and what is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.errors import EngineError, InputError, IntegrityError
from safescale_ammt.spark import faults
from safescale_ammt.spark.address import Address
from safescale_ammt.spark.faults import fault_of, guarded, status_of, told
from safescale_ammt.spark.local_server import java_of, local_server
from safescale_ammt.spark.session import open_session

EXPECTED = "sc://HOST:15002, or local[2] for Spark on two cores of this machine"


@pytest.mark.parametrize(
    ("text", "cores", "shown"),
    [
        ("local[2]", "2", "local[2]"),
        (" local[*] ", "*", "local[*]"),
        ("sc://spark:15002", "", "sc://spark:15002"),
        ("sc://spark.team.svc.cluster.local", "", "sc://spark.team.svc.cluster.local"),
        ("sc://[::1]:15002/", "", "sc://[::1]:15002"),
        ("sc://h:1/;use_ssl=true;token=secret", "", "sc://h:1"),
    ],
)
def test_a_place_of_spark_is_shown_without_its_token(text, cores, shown) -> None:
    found = Address.of({SPARK_ADDRESS: text})
    assert (found.cores, found.shown) == (cores, shown)
    assert found.uri == ("" if cores else text)


@pytest.mark.parametrize("environ", [{}, {SPARK_ADDRESS: " "}])
def test_without_a_place_the_variable_is_named(environ) -> None:
    with pytest.raises(InputError) as caught, open_session(environ):
        pass
    assert str(caught.value) == (
        "SAFESCALE_SPARK is not set, so data.engine: spark has no Spark to prepare "
        f"rows on; set it to {EXPECTED}."
    )


@pytest.mark.parametrize(
    "text",
    [
        *(
            "spark://h:7077",
            "local",
            "local[0]",
            "local[2,3]",
            "yarn",
            "sc://",
            "h:15002",
        ),
        *("sc://h/path;token=secret", "sc://u:secret@h:15002", "sc://h:99 secret"),
    ],
)
def test_what_is_no_place_of_spark_is_refused_and_shows_no_token(text) -> None:
    with pytest.raises(InputError, match=r"SAFESCALE_SPARK starts with '\w*' and") as c:
        Address.of({SPARK_ADDRESS: text})
    assert str(c.value).endswith(f"is no address of Spark, expected {EXPECTED}.")
    assert "secret" not in str(c.value)


def test_without_the_client_the_extra_is_named(monkeypatch) -> None:
    for name in ("grpc", "pyspark"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(InputError, match=r"pip install 'safescale-ammt\[spark\]'"),
        open_session({SPARK_ADDRESS: "sc://h:15002"}),
    ):
        pass


def test_without_a_java_spark_on_this_machine_says_so(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert not java_of(environ)
    with (
        pytest.raises(InputError, match=r"^There is no Java here.*openjdk-17-jre"),
        local_server("1", environ, {}, 1),
    ):
        pass


def test_java_is_found_by_its_home_first(tmp_path: Path) -> None:
    for name in ("home/bin", "path"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "java").touch(mode=0o755)
    environ = {"PATH": str(tmp_path / "path")}
    assert java_of(environ) == str(tmp_path / "path/java")
    environ["JAVA_HOME"] = str(tmp_path / "home")
    assert java_of(environ) == str(tmp_path / "home/bin/java")
    # As Spark does it: a home without a Java is none, whatever else is here.
    assert not java_of(environ | {"JAVA_HOME": str(tmp_path)})


class Said(Exception):
    """What Spark's client raises, as far as `told` looks at it."""

    def __init__(self, text: str, condition: str | None = None) -> None:
        super().__init__(text)
        self.condition = condition

    def getCondition(self) -> str | None:  # noqa: N802  its name there
        return self.condition


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[INVALID_HANDLE.SESSION_CHANGED] the handle", "let go of this session"),
        ("[INVALID_HANDLE.SESSION_NOT_FOUND] The handle", "let go of this session"),
        ("status = StatusCode.UNAVAILABLE Connection refused", "no longer answers"),
        ("ExecutorLostFailure (executor 3 exited)", "lost executors"),
        ("MetadataFetchFailedException: Missing an output", "lost executors"),
        ("java.io.IOException: No space left on device", "no disk left for shuffles"),
        ("java.lang.OutOfMemoryError: Java heap space", "ran out of memory"),
        ("Python worker exited unexpectedly (crashed)", "ran out of memory"),
        ("No module named 'safescale_ammt'", "both have to be of one image"),
        ("is bigger than spark.driver.maxResultSize", "send back more than"),
    ],
)
def test_each_way_in_which_spark_fails_has_its_sentence(text, words) -> None:
    found = told(Said(f"Job aborted: cell-of-a-row: {text}: cell-of-a-row"))
    assert type(found) is EngineError
    assert found.exit_code == 1
    assert words in str(found)
    assert "cell-of-a-row" not in str(found)


def test_other_pythons_are_named_and_nothing_else() -> None:
    text = (
        "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than "
        "that in driver: 3.11, PySpark cannot run"
    )
    found = told(Said(text))
    assert type(found) is InputError
    start = "Spark's workers run Python 3.12 and this process 3.11;"
    assert str(found).startswith(start)


@pytest.mark.parametrize("condition", ["CAST_INVALID_INPUT", None, "a cell: 007"])
def test_what_nobody_foresaw_is_told_by_its_condition_alone(condition) -> None:
    found = str(told(Said("The value 'cell' cannot be cast", condition)))
    assert "cell" not in found
    named = " (CAST_INVALID_INPUT)" if condition == "CAST_INVALID_INPUT" else ""
    assert found.startswith(f"Spark could not do its part: Said{named};")


def through(function) -> tuple[type[Exception], str]:
    """Returns what is told of a worker that runs a function on a batch."""
    with pytest.raises(RuntimeError) as caught:
        [*guarded(function)(iter(["a batch"]))]
    assert caught.value.__context__ is None
    found = told(
        Said(f"PythonException: Traceback ...\nRuntimeError: {caught.value}\n")
    )
    return type(found), str(found)


def test_an_error_of_ours_leaves_a_worker_as_itself() -> None:
    def changed(batches):
        yield from ()
        raise IntegrityError('rows.csv changed; "start" anew: ünder [way]')

    sentence = 'rows.csv changed; "start" anew: ünder [way]'
    assert through(changed) == (IntegrityError, sentence)


def test_an_error_of_a_library_leaves_a_worker_without_its_message() -> None:
    def broken(batches):
        for batch in batches:
            yield int(f"cell in {batch}")

    kind, sentence = through(broken)
    assert kind is EngineError
    # Where our code stands; with none of it in between, where it was raised.
    start = "A worker of Spark broke: ValueError at faults.py, line "
    assert sentence.startswith(start)
    assert "cell" not in sentence
    assert fault_of(ValueError("cell"))[1].startswith(
        "A worker of Spark broke: ValueError at ?; its message is left out"
    )


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowMemoryError])
def test_a_worker_without_memory_is_told_what_to_give_it(error) -> None:
    def full(batches):
        yield from ()
        raise error("cell")

    kind, sentence = through(full)
    assert kind is EngineError
    assert sentence.startswith("A worker of Spark ran out of memory")
    assert "cell" not in sentence


def test_a_guarded_function_that_does_well_is_as_before() -> None:
    def twice(batches):
        for batch in batches:
            yield 2 * batch

    assert [*guarded(twice)(iter([1, 2]))] == [2, 4]


def test_a_worker_with_other_code_runs_nothing(monkeypatch) -> None:
    ran = []
    work = guarded(lambda batches: ran.append(batches) or batches)
    # The worker is this process, after its library was changed.
    monkeypatch.setattr(faults, "code_of_rows", lambda: "sha256:other")
    with pytest.raises(RuntimeError) as caught:
        [*work(iter([1]))]
    found = told(Said(str(caught.value)))
    assert type(found) is InputError
    assert str(found).startswith("Spark's workers have another version of our code, ")
    assert not ran


def test_a_subclass_that_only_a_worker_knows_is_its_nearest_kind() -> None:
    class OwnError(IntegrityError):
        """Of a module that the driver may not have."""

    assert fault_of(OwnError("a sentence")) == ("IntegrityError", "a sentence")


@pytest.mark.parametrize("words", ['["SystemExit", "x"]', '["IntegrityError", "cell"]'])
def test_words_of_a_cell_are_no_words_of_a_worker(words) -> None:
    mark = os.urandom(16).hex()
    found = told(Said(f"RuntimeError: {mark}{words}{mark}"))
    assert type(found) is EngineError
    assert "cell" not in str(found)


class Status:
    """A status of gRPC, as an error of gRPC or of PySpark gives it."""

    name = "UNAUTHENTICATED"


@pytest.mark.parametrize("way", ["code", "getGrpcStatusCode"])
def test_the_status_of_a_call_is_looked_at_too(way: str) -> None:
    error = Said("nothing is said")
    setattr(error, way, Status)
    assert status_of(error) == "UNAUTHENTICATED"
    assert "refuses this client" in str(told(error))
    assert status_of(ValueError("x")) == ""
