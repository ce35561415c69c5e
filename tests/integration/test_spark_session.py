"""Sessions on a real Spark Connect: what goes wrong in one is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from socket import AF_INET, SHUT_RDWR, SOCK_STREAM, create_connection, socket

import pyarrow as pa
import pytest
from spark_server import SPARK, address

from benchmarks.local_spark import FOLDER
from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.errors import EngineError, InputError, IntegrityError, StorageError
from safescale_ammt.execution import chain
from safescale_ammt.spark import faults
from safescale_ammt.spark.faults import guarded
from safescale_ammt.spark.local_server import free_port, local_server
from safescale_ammt.spark.session import open_session

pytestmark = SPARK
ROOT = Path(__file__).parents[2]
CELL = "a-cell-of-a-row"


def cells(session):
    """A frame with one text."""
    return session.createDataFrame(pa.table({"a": [CELL]}), "a string")


def raising(error):
    def run(batches):
        for batch in batches:
            raise error(f"no good: {batch['a'][0].as_py()}")
        yield from ()

    return run


@contextmanager
def told(capfd, kind) -> Iterator[list[str]]:
    """Asserts that a block raises such an error, which nothing else is printed of."""
    words: list[str] = []
    with pytest.raises(kind) as caught:
        yield words
    assert type(caught.value) is kind
    assert [*chain(caught.value)] == [caught.value]
    words.append(str(caught.value))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert CELL not in words[0]
    assert "\n" not in words[0]


def test_a_session_is_let_go_and_its_server_stays(spark) -> None:
    with open_session(address(spark)) as session:
        assert cells(session).toArrow()["a"].to_pylist() == [CELL]
        assert session.conf.get("spark.sql.session.timeZone") == "UTC"
    assert session.is_stopped
    assert spark.sql("SELECT 1 AS one").toArrow()["one"].to_pylist() == [1]


@pytest.mark.parametrize("name", ["rows", "r" * 4000])
def test_an_error_of_ours_in_a_worker_comes_out_as_it_is(spark, capfd, name) -> None:
    def changed(batches):
        yield from ()
        raise IntegrityError(f"{name}.csv changed while it was read; start anew.")

    with told(capfd, IntegrityError) as words, open_session(address(spark)) as session:
        cells(session).mapInArrow(guarded(changed), "a string").toArrow()
    assert words == [f"{name}.csv changed while it was read; start anew."]


@pytest.mark.parametrize("guard", [guarded, lambda function: function])
def test_a_worker_that_breaks_shows_no_cell(spark, capfd, guard) -> None:
    with told(capfd, EngineError) as words, open_session(address(spark)) as session:
        cells(session).mapInArrow(guard(raising(ValueError)), "a string").toArrow()
    assert "its message is left out, as it may quote a row" in words[0]


def test_a_worker_without_room_is_told_where(spark, capfd) -> None:
    full = raising(lambda message: OSError(ENOSPC, message))
    with told(capfd, StorageError) as words, open_session(address(spark)) as session:
        cells(session).mapInArrow(guarded(full), "a string").toArrow()
    assert "no room left on its disk" in words[0]


def test_what_spark_could_not_cast_is_not_shown(spark, capfd) -> None:
    with told(capfd, EngineError) as words, open_session(address(spark)) as session:
        query = "SELECT CAST(a AS int) FROM {rows}"
        session.sql(query, rows=cells(session)).toArrow()
    assert "(CAST_INVALID_INPUT)" in words[0]


def test_a_query_that_is_wrong_is_told_without_itself(spark, capfd) -> None:
    with told(capfd, EngineError) as words, open_session(address(spark)) as session:
        session.sql(f"SELECT `{CELL}`").toArrow()
    assert "UNRESOLVED_COLUMN" in words[0]


def test_workers_of_another_python_are_refused(spark, capfd, monkeypatch) -> None:
    from pyspark.sql.connect.expressions import PythonUDF

    def older(*arguments, **named):
        return PythonUDF(*arguments, **{**named, "python_ver": "3.9"})

    monkeypatch.setattr("pyspark.sql.connect.udf.PythonUDF", older)
    with told(capfd, InputError) as words, open_session(address(spark)) as session:
        cells(session).mapInArrow(guarded(iter), "a string").toArrow()
    here = "{}.{}".format(*sys.version_info)
    assert f"workers run Python {here} and this process 3.9;" in words[0]


def test_workers_with_other_code_are_refused(spark, capfd, monkeypatch) -> None:
    def mine() -> str:
        return "sha256:of this process"

    monkeypatch.setattr(faults, "code_of_rows", mine)
    work = faults.guarded(iter)
    with told(capfd, InputError) as words, open_session(address(spark)) as session:
        cells(session).mapInArrow(work, "a string").toArrow()
    assert words[0].startswith("Spark's workers have another version of our code, ")


def test_a_server_of_another_version_is_refused(spark, capfd, monkeypatch) -> None:
    monkeypatch.setattr("pyspark.__version__", "4.2.9")
    with told(capfd, InputError) as words, open_session(address(spark)):
        pass
    assert " is 4.3.0, and its client here 4.2.9; both" in words[0]
    assert "token" not in words[0]


def test_a_session_that_its_server_let_go_of_is_told(spark, capfd) -> None:
    with told(capfd, EngineError) as words, open_session(address(spark)) as session:
        session.client.release_session()
        session.sql("SELECT 1").toArrow()
    assert "let go of this session; run it again" in words[0]


class Way:
    """A way to a server that can be cut: every byte goes through it."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket] = []
        self._listening = socket(AF_INET, SOCK_STREAM)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._copy, args=(one, other))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _copy(one: socket, other: socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        """Ends all that goes through, and lets nobody in any more."""
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


def test_a_server_that_goes_away_midway_is_waited_for_and_told(spark, capfd) -> None:
    way = Way(spark.client._builder.url.port)
    start = time.monotonic()
    way_there = open_session(address(spark, way.port), patience=1)
    with told(capfd, EngineError) as words, way_there as session:
        assert cells(session).toArrow().num_rows == 1
        way.cut()
        cells(session).toArrow()
    assert words[0].startswith("Spark's server no longer answers;")
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("listens", [False, True])
def test_where_nobody_answers_the_wait_ends(spark, capfd, listens) -> None:
    with socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        if listens:
            silent.listen()
        environ = {SPARK_ADDRESS: f"sc://127.0.0.1:{port}/;user_id=secret"}
        with told(capfd, EngineError) as words, open_session(environ, patience=0.5):
            pass
    start = f"No Spark Connect answers at sc://127.0.0.1:{port} within 0.5 s; look"
    assert words[0].startswith(start)
    assert "secret" not in words[0]


# Spark asks a first Java how to start the second one, which is the server.
JAVA = """#!/bin/sh
case "$*" in *launcher.Main*) printf '\\0\\n%s\\0' "$0" server; exit ;; esac
"""


@pytest.mark.parametrize(
    ("does", "how"), [("exit 3", "ended with code 3"), ("exec sleep 600", "took over")]
)
def test_a_java_that_starts_no_spark_is_told_and_ended(
    spark, tmp_path: Path, does: str, how: str
) -> None:
    java, note = tmp_path / "bin/java", tmp_path / "pid"
    java.parent.mkdir()
    java.write_text(f"{JAVA}echo $$ > {note}\n{does}\n")
    java.chmod(0o755)
    environ = {**os.environ, "JAVA_HOME": str(tmp_path)}
    with (
        pytest.raises(EngineError, match=f"did not start on this machine: it {how}"),
        local_server("1", environ, {}, 3),
    ):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_server_ends_with_who_is_killed_and_leaves_no_log(
    spark, tmp_path: Path
) -> None:
    java, note, scratch = tmp_path / "bin/java", tmp_path / "pid", tmp_path / "tmp"
    java.parent.mkdir()
    scratch.mkdir()
    java.write_text(f"{JAVA}echo a row\necho $$ > {note}\nexec sleep 600\n")
    java.chmod(0o755)
    code = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "from safescale_ammt.spark.local_server import local_server\n"
        "with local_server('1', os.environ, {}, 600): pass\n"
    )
    home = os.environ.get("PYTHONPATH", "")
    own = {"JAVA_HOME": str(tmp_path), "TMPDIR": str(scratch)}
    environ = {**os.environ, **own, "PYTHONPATH": f"{ROOT}:{home}"}
    command = [sys.executable, "-c", code, str(FOLDER)]
    with subprocess.Popen(command, env=environ) as owner:
        wait_for(lambda: note.exists() and note.read_text())
        owner.kill()
    server = int(note.read_text())
    wait_for(lambda: not is_alive(server))
    assert [file for file in scratch.rglob("*") if file.is_file()] == []


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """Says whether a process runs; one that nobody has waited for does not."""
    with suppress(FileNotFoundError):
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    return False


def test_a_process_that_hides_pandas_gets_a_session_all_the_same(spark) -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from safescale_ammt.library_imports import spare_imports\n"
        "spare_imports()\n"
        "import pyarrow as pa, scipy.special\n"
        "pa.array(['x'])\n"
        "from safescale_ammt.spark.session import open_session\n"
        "with open_session() as session:\n"
        "    rows = session.createDataFrame(pa.table({'a': ['x']}), 'a string')\n"
        "    same = lambda batches: batches\n"
        "    print(rows.mapInArrow(same, 'a string').toArrow()['a'])\n"
    )
    home = os.environ.get("PYTHONPATH", "")
    environ = {**os.environ, **address(spark), "PYTHONPATH": f"{ROOT}:{home}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"x"' in done.stdout


def test_a_free_port_is_one_that_can_be_taken() -> None:
    with socket() as taking:
        taking.bind(("127.0.0.1", free_port()))
