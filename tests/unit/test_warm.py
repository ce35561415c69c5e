"""Stages forked from a warm process: what they get, give back and never share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from patience import eventually

from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from pipelines.local.forked import possible
from pipelines.local.kfp_seam import StageCall, stage_call
from pipelines.local.process_runner import run_cold
from pipelines.local.warm import imported
from pipelines.local.warm_process import WarmProcess

pytestmark = pytest.mark.skipif(not possible(), reason="Stages start cold here.")

COMPONENT = """
from kfp import dsl
from kfp.dsl import *

def notify(text: str, made: Output[Artifact]) -> None:
{body}
"""


@pytest.fixture
def warm(monkeypatch):
    """A warm process; it imports what `notify` needs, the lightest stage."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with WarmProcess() as process:
        yield process


def a_call(folder: Path, body: str) -> StageCall:
    """A call of a component with one parameter and one artifact."""
    output = {"uri": str(folder / "made"), "name": "made"}
    executor_input = {
        "inputs": {"parameterValues": {"text": "é\n"}},
        "outputs": {
            "outputFile": str(folder / "executor_output.json"),
            "artifacts": {"made": {"artifacts": [output]}},
        },
    }
    source = COMPONENT.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    words = ("--executor_input", json.dumps(executor_input))
    return StageCall("notify", source, (*words, "--function_to_execute", "notify"))


def command_of(call: StageCall) -> list[str]:
    """What KFP compiles for such a function."""
    executor = next(iter(CompiledPipeline.parse(compile_train()).executors.values()))
    return [*executor["container"]["command"][:3], call.source, *call.arguments]


def test_every_command_of_the_compiled_pipeline_can_be_forked():
    pipeline = CompiledPipeline.parse(compile_train())
    for executor in pipeline.executors.values():
        container = executor["container"]
        assert not container.get("env")
        call = stage_call([*container["command"], *container["args"]])
        assert call is not None
        assert f"def {call.function}(" in call.source
        assert StageCall.from_line(call.to_line()) == call


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["echo", "hello"],
        ["sh", "-ec", "python3 -m kfp.dsl.executor_main", "source"],
        ["sh", "-c", "program_path=$(mktemp -d)", "source", "--executor_input", "{}"],
    ],
)
def test_any_other_command_is_none_of_ours(command):
    assert stage_call(command) is None


def test_a_fork_and_a_cold_start_give_and_say_the_same(warm, tmp_path, capfd):
    body = """
        import os, sys, threading
        made.metadata.update({"text": text, "name": __name__})
        print("out", text.strip(), os.getcwd(), sys.path[0] != "", sys.argv[0][-16:])
        print("err", file=sys.stderr)
        print(threading.active_count(), os.umask(0), sorted(os.environ) == KNOWN)
    """
    known = sorted({*os.environ, "_KFP_RUNTIME"})
    said, wrote = [], []
    for name in ("forked", "cold"):
        folder = tmp_path / name
        call = a_call(folder, body.replace("KNOWN", repr(known)))
        code = warm.run(call) if name == "forked" else run_cold(command_of(call), {})
        assert code == 0
        said.append(
            [x for x in capfd.readouterr().out.splitlines() if x[:3] in ("out", "err")]
        )
        text = (folder / "executor_output.json").read_text()
        wrote.append(json.loads(text.replace(str(folder), "FOLDER")))
    assert said[0]
    assert said[0] == said[1]
    assert wrote[0] == wrote[1]
    assert wrote[0]["artifacts"]["made"]["artifacts"][0]["metadata"]["text"] == "é\n"


def test_each_stage_has_its_own_exit_code_and_the_next_one_starts_anew(
    warm, tmp_path, capfd
):
    for body, code in (
        ("raise SystemExit(3)", 3),
        ("raise SystemExit", 0),
        ("raise SystemExit('last word')", 1),
        ("raise ValueError('broken')", 1),
        ("import os\nos.kill(os.getpid(), 9)", -9),
        ("import os\nos.kill(os.getpid(), 15)", -15),
        ("print('well')", 0),
    ):
        assert warm.run(a_call(tmp_path, body)) == code
    said = capfd.readouterr().out
    assert "ValueError: broken" in said
    assert "last word" in said
    assert "well" in said


def test_what_is_due_at_the_end_of_a_process_is_done_at_that_of_a_stage(
    warm, tmp_path, capfd
):
    body = """
        import atexit, sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        atexit.register(print, "at the end")
        threading.Thread(target=lambda: (time.sleep(.2), print("a thread"))).start()
        ThreadPoolExecutor(1).submit(print, "a pool")
        sys.stdout = open(1, "w", buffering=1 << 16, closefd=False)
        print("not yet written")
    """
    assert warm.run(a_call(tmp_path, body)) == 0
    said = capfd.readouterr().out
    for words in ("a thread", "a pool", "at the end", "not yet written"):
        assert words in said


def test_what_one_stage_changes_the_next_does_not_see(warm, tmp_path, capfd):
    change = """
        import os, sys, random, signal
        os.environ["LEFT"] = "behind"; os.chdir("/"); sys.path.append("left")
        sys.modules["left_behind"] = sys; os.umask(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("random", random.random())
    """
    look = """
        import os, sys, random, signal
        print("seen", "LEFT" in os.environ, os.getcwd() == "/", "left" in sys.path)
        print("seen", "left_behind" in sys.modules, os.umask(0) == 0)
        print("seen", signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)
        print("random", random.random())
    """
    for body in (change, look):
        assert warm.run(a_call(tmp_path, body)) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    seen = [word for line in lines if line[:1] == ["seen"] for word in line[1:]]
    assert seen == ["False"] * 6
    drawn = [line[1] for line in lines if line[:1] == ["random"]]
    assert len(set(drawn)) == 2


def test_a_stage_holds_no_file_of_the_process_before_it(warm, tmp_path, capfd):
    body = """
        import os
        print("files", sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
    """
    assert warm.run(a_call(tmp_path, body)) == 0
    assert "files [0, 1, 2]" in capfd.readouterr().out


def test_a_stage_that_needs_what_is_not_there_starts_cold(warm, tmp_path):
    call = a_call(tmp_path, "print('well')")
    assert warm.run(StageCall("no_stage", call.source, call.arguments)) is None
    assert not imported("no_stage")
    # The process is none the worse for it.
    assert warm.run(call) == 0


def test_a_warm_process_that_was_killed_is_followed_by_another(warm, tmp_path):
    call = a_call(tmp_path, "import os\nos.kill(os.getppid(), 9)\nos.read(0, 1)")
    assert warm.run(call) == -signal.SIGKILL
    assert warm.run(a_call(tmp_path, "print('well')")) == 0


HOLDER = """
import os, sys
sys.path[:0] = {path!r}
from test_warm import a_call
from pathlib import Path
from pipelines.local.warm_process import WarmProcess
with WarmProcess() as warm:
    print(warm.run(a_call(Path(sys.argv[1]), {body!r})), flush=True)
"""
WAITS = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def holder(folder: Path, body: str) -> subprocess.Popen[str]:
    """A process of a group of its own that runs a stage in a fork."""
    path = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(path=path, body=body), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def heard(process: subprocess.Popen[str], line: str) -> bool:
    """Reads what a process says up to a line; False if it never says it."""
    assert process.stdout is not None
    return any(said.strip() == line for said in process.stdout)


@pytest.mark.parametrize("victim", ["holder", "warm"])
def test_a_stage_ends_with_those_above_it(tmp_path, victim):
    with holder(tmp_path, WAITS) as above:
        assert heard(above, "up")
        everybody = psutil.Process(above.pid).children(recursive=True)
        assert len(everybody) == 2
        if victim == "holder":
            above.kill()
        else:
            everybody[0].kill()
        assert eventually(lambda: not any(p.is_running() for p in everybody))


def test_sigterm_to_the_group_reaches_the_stage_and_nobody_starts_another(tmp_path):
    with holder(tmp_path, WAITS) as above:
        assert heard(above, "up")
        warm, stage = psutil.Process(above.pid).children(recursive=True)
        for one in (warm, stage):
            one.send_signal(signal.SIGTERM)
        assert heard(above, str(int(-signal.SIGTERM)))
        assert above.wait() == 0


def test_a_stage_bears_its_name_for_who_lists_processes(warm, tmp_path, capfd):
    body = "print('named', open('/proc/self/comm').read())"
    assert warm.run(a_call(tmp_path, body)) == 0
    assert "named notify" in capfd.readouterr().out


def test_a_process_that_ignores_sigint_has_stages_that_do(tmp_path):
    body = "import signal\nprint('int', signal.getsignal(2) == signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with holder(tmp_path, body) as above:
            assert heard(above, "int True")
    finally:
        signal.signal(signal.SIGINT, before)
