"""One container: its exit code is never lost, its cage is real, nothing stays."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from docker.errors import NotFound
from patience import eventually

from components import image
from pipelines.local.container_engine import (
    PLACE,
    RUN,
    place,
    remove_run,
    stage_images,
    swept,
)
from pipelines.local.containers import GRACE, Box, Containers
from safescale_ammt.errors import InputError, SafescaleError

pytestmark = pytest.mark.xdist_group("containers")
SMALL = image("register_model")


@pytest.fixture
def box(engine):
    """A box that a test fills with a command; its run's containers are its own."""
    box = Box(
        run=f"test-{uuid.uuid4().hex[:8]}",
        stage="stage",
        image=SMALL,
        command=("true",),
        memory=64 << 20,
        cpus=1.0,
    )
    yield box
    remove_run(engine, box.run)


@pytest.fixture
def containers(engine):
    return Containers(engine)


def left(engine, box):
    """Lists what is left of a run."""
    label = {"label": f"{RUN}={box.run}"}
    # Sparse: the client asks for each one again, which may be gone or not quite there.
    return engine.containers.list(all=True, filters=label, sparse=True)


def asked_once_it_says(engine, box, word):
    """Returns what is set as soon as a container has said a word."""
    asked = threading.Event()

    def says() -> bool:
        try:
            return any(word in c.logs() for c in left(engine, box))
        except NotFound:  # listed, and not there for another question: made just now
            return False

    def wait() -> None:
        eventually(says)
        asked.set()

    threading.Thread(target=wait, daemon=True).start()
    return asked


def shell(box, script, **changes):
    return replace(box, command=("sh", "-ec", script), **changes)


def test_of_a_hundred_containers_that_exit_3_a_hundred_failures_are_seen(
    engine, containers, box
):
    def run(number: int) -> int:
        one = shell(box, "exit 3", stage=f"stage-{number}")
        return containers.run(one, threading.Event()).code

    with ThreadPoolExecutor(10) as pool:
        codes = list(pool.map(run, range(100)))
    assert codes == [3] * 100
    assert left(engine, box) == []


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_an_exit_code_is_what_the_program_said(containers, box, code):
    ended = containers.run(shell(box, f"exit {code}"), threading.Event())
    assert (ended.code, ended.out_of_memory) == (code, False)


def test_every_line_that_a_container_says_is_heard(containers, box, capfd):
    containers.run(shell(box, "seq 20000"), threading.Event())
    assert capfd.readouterr().out.split() == [str(n + 1) for n in range(20_000)]


def test_a_container_that_needs_too_much_memory_is_told_from_one_that_fails(
    containers, box
):
    greedy = replace(box, command=("python3", "-c", "bytearray(1 << 28)"))
    ended = containers.run(greedy, threading.Event())
    assert ended.out_of_memory
    assert ended.code == 137
    below = shell(box, "python3 -c 'bytearray(1 << 28)'")
    assert containers.run(below, threading.Event()).out_of_memory


def test_a_container_can_do_no_more_than_its_work(containers, box, tmp_path, capfd):
    tmp_path.chmod(0o2770)
    script = f"""
        id -u; id -g
        grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t'
        touch /here 2>/dev/null || echo read-only
        touch /tmp/here
        mkdir {tmp_path}/made; echo x > {tmp_path}/made/file
        tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
    """
    ended = containers.run(shell(box, script, folder=tmp_path), threading.Event())
    assert ended.code == 0
    assert capfd.readouterr().out.split() == [
        *("10001", "0"),
        *("CapBnd:" + "0" * 16, "CapEff:" + "0" * 16)[::-1],
        *("NoNewPrivs:1", "Seccomp:2", "read-only", "lo"),
    ]
    made = tmp_path / "made"
    # The caller's group may change and delete it, whoever the caller is.
    assert made.stat().st_mode & 0o2070 == 0o2070
    assert (made / "file").stat().st_mode & 0o060 == 0o060
    assert made.stat().st_gid == tmp_path.stat().st_gid


def test_a_container_reads_what_it_was_given_and_changes_none_of_it(
    containers, box, tmp_path, capfd
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a, b:c.txt").write_text("given")
    (tmp_path / "out").mkdir()
    (tmp_path / "other").mkdir()
    given = tmp_path / "in"
    script = f"""
        cat '{given}/a, b:c.txt'; echo
        echo x 2>/dev/null > {given}/new || echo refused
        ls {tmp_path}
    """
    one = shell(box, script, inputs={given: given}, folder=tmp_path / "out")
    assert containers.run(one, threading.Event()).code == 0
    assert capfd.readouterr().out.split() == ["given", "refused", "in", "out"]


def test_a_container_that_is_stopped_may_clean_up_first(engine, containers, box, capfd):
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(1)\n"
        "    print('cleaned up', flush=True)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(6000)\n"
    )
    # With a shell in between, as KFP has it; a shell dies of SIGTERM at once.
    one = shell(box, f'python3 -c "{script}"; true')
    asked = asked_once_it_says(engine, box, b"ready")
    assert containers.run(one, asked).code != 0
    assert capfd.readouterr().out.split("\n")[:2] == ["ready", "cleaned up"]


@pytest.mark.slow
def test_a_container_that_does_not_hear_is_killed(engine, containers, box):
    deaf = shell(box, "trap '' TERM; echo deaf; while true; do sleep 1; done")
    asked = asked_once_it_says(engine, box, b"deaf")
    start = time.monotonic()
    assert containers.run(deaf, asked).code == 137
    assert time.monotonic() - start > GRACE
    assert left(engine, box) == []


def test_what_cannot_be_run_is_one_sentence(engine, containers, box):
    for wrong, words in (
        (
            replace(box, image="safescale-ammt/nothing:0"),
            "could not run stage: .*image",
        ),
        (
            replace(box, inputs={Path("/nowhere"): Path("/nowhere")}),
            "could not run stage: .*bind source path",
        ),
    ):
        with pytest.raises(SafescaleError, match=words) as error:
            containers.run(wrong, threading.Event())
        assert "\n" not in str(error.value)
    assert left(engine, box) == []


def test_a_container_that_is_removed_is_no_success(engine, containers, box):
    def remove() -> None:
        eventually(lambda: left(engine, box))[0].remove(force=True)

    threading.Thread(target=remove).start()
    try:
        code = containers.run(shell(box, "sleep 6000"), threading.Event()).code
    except SafescaleError as error:
        assert "removed by somebody else" in str(error)  # noqa: PT017  either is fine
    else:
        assert code == 137


def test_once_closed_nothing_runs_and_nothing_starts(engine, containers, box):
    def close() -> None:
        eventually(lambda: left(engine, box))
        containers.close()

    closing = threading.Thread(target=close)
    closing.start()
    try:
        assert containers.run(shell(box, "sleep 6000"), threading.Event()).code != 0
    except SafescaleError as error:
        assert "removed" in str(error)  # noqa: PT017
    closing.join()
    with pytest.raises(SafescaleError, match="not started: the run is over"):
        containers.run(box, threading.Event())
    assert left(engine, box) == []


def test_the_next_run_removes_what_a_killed_one_left(
    engine, box, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with swept(box.run):
        labels = {RUN: box.run, PLACE: place()}
        engine.containers.run(SMALL, ["sleep", "60"], labels=labels, detach=True)
        with swept(f"{box.run}-beside"):
            assert left(engine, box), "it belongs to a run that lives"
        engine.containers.run(
            SMALL, ["sleep", "60"], labels={**labels, RUN: "test-killed"}, detach=True
        )
        with swept(f"{box.run}-next"):
            assert left(engine, replace(box, run="test-killed")) == []
            assert left(engine, box)
    assert left(engine, box) == []


def test_the_next_run_takes_away_the_locks_of_killed_ones(
    engine, box, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".safescale" / "containers"
    folder.mkdir(parents=True)
    (folder / "killed.lock").touch()
    with swept(box.run):
        assert [f.name for f in folder.iterdir()] == [f"{box.run}.lock"]
        with swept(f"{box.run}-beside"):
            assert (folder / f"{box.run}.lock").exists()
    assert list(folder.iterdir()) == []


def test_images_that_are_missing_or_of_other_code_are_bad_input(engine):
    assert stage_images(engine, [SMALL])[SMALL].startswith("sha256:")
    with pytest.raises(InputError, match="not in the container engine; `make images`"):
        stage_images(engine, ["safescale-ammt/nothing:0.0.0"])
    other = engine.images.get(SMALL)
    container = engine.containers.create(other.id)
    try:
        label = 'LABEL safescale-ammt.code="sha256:other"'
        container.commit("safescale-ammt/test-other", "code", changes=[label])
        with pytest.raises(InputError, match="other code than this; `make images`"):
            stage_images(engine, ["safescale-ammt/test-other:code"])
    finally:
        container.remove()
        engine.images.remove("safescale-ammt/test-other:code")
