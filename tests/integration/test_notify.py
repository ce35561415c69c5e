"""Telling people how a run ended: real posts, real stores, the real exit task."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import account, certificate
from cluster.api import ClusterApi
from cluster.run_pods import add_pod, ended
from laptop import CONSTITUTION, Laptop
from patience import PATIENCE, eventually
from receiver import HANG, Receiver, receiving

from safescale_ammt.errors import ConfigError
from safescale_ammt.releasing.notice import (
    WEBHOOK_RETRY,
    Notice,
    Undelivered,
    send,
    sign,
)
from safescale_ammt.releasing.run_outcome import PromiseShown, RunOutcome
from safescale_ammt.releasing.telling import claim, tell
from safescale_ammt.reporting.markdown import plain
from safescale_ammt.stages import notify
from safescale_ammt.store.uri import open_store

QUICK = replace(WEBHOOK_RETRY, retries=2, first=0.01, connect=PATIENCE, read=PATIENCE)
HASTY = replace(QUICK, read=0.3)
PENDING = RunOutcome.now(
    run="r-1",
    status="pending",
    sentence="loans version 2 is pending.",
    decision="needs_human",
    registry="loans",
    version=2,
    model="sha256:m",
    verdict="sha256:v",
)
NOTICE = Notice.of(PENDING, "SUCCEEDED")


def environ_of(receiver: Receiver, **more: str) -> dict[str, str]:
    return {"SAFESCALE_WEBHOOK_URL": receiver.url, **more}


def test_a_notice_arrives_as_json_that_a_chat_service_can_show():
    with receiving() as receiver:
        assert send(NOTICE, environ_of(receiver)) == receiver.url.split("/")[2]
        (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json"
    told = request.notice
    assert told["text"] == "safescale-train r-1: pending. loans version 2 is pending."
    assert (told["schema"], told["run"], told["version"]) == (1, "r-1", 2)
    assert (told["status"], told["pipeline_state"]) == ("pending", "SUCCEEDED")
    assert "x-safescale-signature" not in request.headers


def test_a_signed_notice_is_believed_only_with_the_right_key_time_and_body():
    with receiving() as receiver:
        secret = {"SAFESCALE_WEBHOOK_SECRET": "k3y"}
        send(NOTICE, environ_of(receiver, **secret), clock=lambda: 1_800_000_000.9)
        (request,) = receiver.requests
    stamp = request.headers["x-safescale-timestamp"]
    signature = request.headers["x-safescale-signature"]
    assert stamp == "1800000000"
    assert signature == sign(request.body, stamp, "k3y")
    assert signature != sign(request.body, stamp, "another key")
    assert signature != sign(request.body + b" ", stamp, "k3y")
    assert signature != sign(request.body, "1800000001", "k3y")


def test_a_receiver_that_recovers_gets_the_notice_once_it_can_take_it():
    with receiving(500, 503, 200) as receiver:
        send(NOTICE, environ_of(receiver), retry=QUICK)
        bodies = {request.body for request in receiver.requests}
    assert len(receiver.requests) == 3
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("answer", "said", "asked"),
    [
        (500, "answered HTTP 500", 3),
        (404, "answered HTTP 404", 1),
        (302, "answered HTTP 302", 1),
        (HANG, "did not answer in time in 3 tries", 3),
    ],
)
def test_a_receiver_that_says_no_is_one_sentence(answer, said, asked):
    with receiving(answer) as receiver:
        retry = HASTY if answer == HANG else QUICK
        with pytest.raises(Undelivered) as caught:
            send(NOTICE, environ_of(receiver), retry=retry)
        # One that was given up is taken note of all the same, perhaps later.
        assert eventually(lambda: len(receiver.requests) >= asked)
        assert len(receiver.requests) == asked
    assert said in str(caught.value)
    assert "S3CRET" not in str(caught.value)


def test_a_receiver_that_is_not_there_is_one_sentence():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/hook/S3CRET"
        with pytest.raises(Undelivered, match="could not be reached") as caught:
            send(NOTICE, {"SAFESCALE_WEBHOOK_URL": url}, retry=QUICK)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/S3CRET",
        "https://u:S3CRET@example.org/",
        "ftp://127.0.0.1/S3CRET",
        "https://[S3CRET",
        "S3CRET",
    ],
)
def test_a_notice_goes_over_https_or_stays_on_this_machine(url):
    with pytest.raises(ConfigError, match="so nobody was told") as caught:
        send(NOTICE, {"SAFESCALE_WEBHOOK_URL": url}, retry=QUICK)
    assert "S3CRET" not in str(caught.value)


def exit_task(store_environ: dict[str, str], **options: Any) -> Notice:
    options = {"state": "SUCCEEDED", "retry": QUICK, **options}
    return notify.run(PENDING.run, environ=store_environ, **options)


@pytest.fixture
def environ(s3_server, s3_store) -> dict[str, str]:
    """A store on SeaweedFS in which run r-1 left its outcome."""
    found = {**s3_server.environ, "SAFESCALE_STORE": s3_store.uri}
    PENDING.write(open_store(s3_store.uri, environ=found))
    return found


def test_the_exit_task_reads_the_outcome_and_writes_the_file(environ, capsys):
    folder = f"{environ['SAFESCALE_STORE']}/notices/"
    told = exit_task({**environ, "SAFESCALE_NOTIFY_FILE": folder})
    store = open_store(environ["SAFESCALE_STORE"], environ=environ)
    assert json.loads(store.get("notices/r-1.json"))["text"] == told.text
    assert f"Told {folder}r-1.json." in capsys.readouterr().out


def test_with_nobody_to_tell_the_exit_task_is_quiet_and_done(environ, capsys):
    assert exit_task(environ).status == "pending"
    said = capsys.readouterr()
    assert "Nobody to tell" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("asked_for", "asked"),
    [("pending,refused,crashed", 1), ("refused", 0), ("", 0), ("all", 1)],
)
def test_people_are_told_of_what_they_asked_for(environ, asked_for, asked):
    with receiving() as receiver:
        exit_task(environ | environ_of(receiver), on=asked_for)
        assert len(receiver.requests) == asked


def test_a_word_that_is_no_status_is_complained_of_and_the_rest_holds(environ, capsys):
    with receiving() as receiver:
        exit_task(environ | environ_of(receiver), on="pendign, pending")
        assert len(receiver.requests) == 1
    assert "notify_on names 'pendign', expected one of" in capsys.readouterr().err


def test_what_cannot_be_delivered_changes_nothing_about_the_run(environ, capsys):
    with receiving(500) as receiver:
        place = {"SAFESCALE_NOTIFY_FILE": "s3://no-such-bucket-here/x.json"}
        assert exit_task({**environ, **environ_of(receiver), **place}).version == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "answered HTTP 500" in said[0]
    assert "no-such-bucket-here does not exist" in said[1]


@pytest.mark.parametrize(
    ("state", "message", "status", "sentence"),
    [
        ("FAILED", "OOM\nKilled", "crashed", "broke off before it reached its gate: O"),
        ("FAILED", "", "unfinished", "a step failed, whose log says why, or somebody"),
        ("RUNNING", "", "unfinished", "did not reach its gate: a step failed"),
        ("", "", "unfinished", "or somebody stopped it"),
        ("CANCELLED", "", "cancelled", "was cancelled"),
        ("CANCELED", "", "cancelled", "was cancelled"),
        ("COMPLETE", "", "unknown", "outcome record cannot be read"),
        ("SUCCEEDED", "", "unknown", "outcome record cannot be read"),
    ],
)
def test_without_an_outcome_kubeflows_word_is_told(
    environ, state, message, status, sentence
):
    with receiving() as receiver:
        notify.run(
            "r-2",
            state,
            message,
            "all",
            environ=environ | environ_of(receiver),
            retry=QUICK,
        )
        (told,) = (request.notice for request in receiver.requests)
    assert told["status"] == status
    assert sentence in told["sentence"]
    assert "\n" not in told["text"]


def test_who_asked_for_crashes_hears_of_a_run_that_did_not_reach_its_gate(environ):
    for asked_for, count in (("crashed", 1), ("unfinished", 1), ("pending,refused", 0)):
        with receiving() as receiver:
            told = environ | environ_of(receiver)
            run = f"r-{asked_for[0]}"
            notify.run(run, "RUNNING", "", asked_for, environ=told, retry=QUICK)
            assert len(receiver.requests) == count, asked_for


def test_a_notice_is_sent_once_however_often_the_exit_task_runs(environ, capsys):
    with receiving() as receiver:
        for _ in range(3):
            exit_task(environ | environ_of(receiver))
        assert len(receiver.requests) == 1
    assert capsys.readouterr().out.count("Nobody was told again") == 2


def test_of_many_that_tell_one_end_at_once_one_does(environ):
    with receiving() as receiver:
        told = environ | environ_of(receiver)
        tasks = [threading.Thread(target=exit_task, args=(told,)) for _ in range(8)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
        assert len(receiver.requests) == 1


def test_each_end_of_a_run_that_is_tried_again_is_a_delivery_of_its_own():
    quiet: Any = lambda _: None  # noqa: E731
    with receiving() as receiver:
        for attempt in (1, 2, 2, 3):
            tell(NOTICE, "all", environ_of(receiver), store=None, attempt=attempt,
                 say=quiet)  # fmt: skip
        ids = [r.headers["x-safescale-delivery"] for r in receiver.requests]
    assert ids == ["r-1-pending", *2 * ["r-1-pending-2"], "r-1-pending-3"]


def test_nobody_asked_claims_nothing(environ):
    exit_task(environ, on="all")  # no receiver
    with receiving() as receiver:
        exit_task(environ | environ_of(receiver), on="refused")
        exit_task(environ | environ_of(receiver), on="pending")
        assert len(receiver.requests) == 1


def test_a_second_end_of_a_run_is_an_end_of_its_own(s3_store):
    assert claim(s3_store, "r-1", 1, "crashed")
    assert not claim(s3_store, "r-1", 1, "champion")
    assert claim(s3_store, "r-1", 2, "crashed")


def test_the_page_says_the_reason_first_then_the_promises_then_where(environ, tmp_path):
    shown = PromiseShown("useful|x", "accuracy ≥ 0.9", "0.84 (≤ 0.86)", "fails")
    sentence = "useful is violated; refused, nothing was registered: model sha256:m."
    store = open_store(environ["SAFESCALE_STORE"], environ=environ)
    RunOutcome.now(
        run="r-1", status="refused", sentence=sentence, promises=(shown,)
    ).write(store)
    page = tmp_path / "outcome"
    exit_task(environ, state="FAILED", page=page)
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Refused: the gate said no, nothing broke"
    assert lines[2] == sentence
    assert lines[6] == "| useful&#124;x | accuracy ≥ 0.9 | 0.84 (≤ 0.86) | **fails** |"
    assert lines[-1].startswith("Where to look: ")
    assert "submit --follow r-1" in lines[-1]


def test_a_page_that_cannot_be_written_changes_nothing(environ, tmp_path, capsys):
    assert exit_task(environ, page=tmp_path / "no" / "page").status == "pending"
    assert "FileNotFoundError" in capsys.readouterr().err


@pytest.fixture
def in_a_pod(tmp_path, environ):
    """The environment of the exit task's pod, and the cluster around it."""
    files = certificate(tmp_path, "api")
    with ClusterApi(tls=files) as cluster:
        mounted = account(tmp_path / "own", cluster.token, files[0].read_bytes())
        port = cluster.url.rpartition(":")[2]
        host = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        yield cluster, {"environ": environ | host, "account": mounted}


def failed_pod(cluster: ClusterApi, status: dict[str, Any]) -> None:
    run = SimpleNamespace(run_id="00000000-0000-4000-8000-00000000000a")
    add_pod(cluster, run, "prepare-data", status)


POD_RUN = "00000000-0000-4000-8000-00000000000a"


def test_the_exit_task_tells_a_crash_in_the_words_of_the_step(in_a_pod, tmp_path):
    cluster, pod = in_a_pod
    words = "s3://team/rows.csv does not exist."
    failed_pod(cluster, ended(1, f"{words} (StorageError, exit code 2)"))
    page = tmp_path / "page"
    note = notify.run(POD_RUN, "RUNNING", **pod, page=page)
    assert note.status == "crashed"
    assert note.sentence.endswith(f"before it reached its gate: prepare-data: {words}")
    assert page.read_text(encoding="utf-8").startswith("# Broke off before the gate")


@pytest.mark.parametrize(
    "status", [ended(143), ended(1, "x was stopped. (Interrupted, exit code 1)")]
)
def test_the_exit_task_blames_nobody_for_a_signal(in_a_pod, status):
    cluster, pod = in_a_pod
    failed_pod(cluster, status)
    note = notify.run(POD_RUN, "RUNNING", **pod)
    assert note.status == "unfinished"
    assert "or somebody stopped it" in note.sentence


@pytest.mark.parametrize("ill", ["forbidden", "nobody", "no pod"])
def test_an_exit_task_that_may_not_look_tells_all_the_same(in_a_pod, capsys, ill):
    cluster, pod = in_a_pod
    if ill == "forbidden":
        cluster.forbid("list", "pods")
    elif ill == "nobody":
        cluster.token = "another"
    assert notify.run(POD_RUN, "RUNNING", **pod).status == "unfinished"
    assert cluster.token not in capsys.readouterr().err


def test_even_a_broken_url_parser_leaves_the_run_alone(environ, capsys):
    place = {"SAFESCALE_NOTIFY_FILE": "file:///\0x"}
    url = {"SAFESCALE_WEBHOOK_URL": "https://" + "a" * 300 + "/S3CRET"}
    assert exit_task({**environ, **place, **url}).status == "pending"
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2
    assert "S3CRET" not in said


def test_a_store_that_is_down_does_not_keep_people_untold(capsys):
    environ = {
        "SAFESCALE_STORE": "s3://bucket",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
    }
    with receiving() as receiver:
        exit_task(environ | environ_of(receiver), state="FAILED", message="exit 1")
        (told,) = (request.notice for request in receiver.requests)
    assert told["status"] == "crashed"
    assert "AWS_SECRET_ACCESS_KEY is not set" in capsys.readouterr().err


def test_a_run_that_fails_after_its_gate_says_both():
    told = Notice.of(PENDING, "FAILED")
    assert told.status == "pending"
    assert told.sentence.endswith("pending. The run itself FAILED after that.")


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    """A laptop whose owner wants to be told of everything, by post and by file."""
    laptop = Laptop(tmp_path / "laptop")
    with receiving() as laptop.receiver, laptop.store():
        monkeypatch.setenv("SAFESCALE_WEBHOOK_URL", laptop.receiver.url)
        place = (tmp_path / "told").as_uri() + "/"
        monkeypatch.setenv("SAFESCALE_NOTIFY_FILE", place)
        yield laptop


def told(laptop: Laptop) -> dict[str, Any]:
    """The one notice of the latest run; the file says what the post said."""
    (request,) = laptop.receiver.requests
    run = laptop.record["run"]
    file = laptop.folder.parent / "told" / f"{run}.json"
    assert file.read_bytes() == request.body
    assert request.notice["run"] == run
    laptop.receiver.requests.clear()
    return request.notice


@pytest.mark.slow
def test_pending_refused_and_crashed_runs_are_told_and_end_as_ever(laptop):
    cautious = {**CONSTITUTION, "groups": {"min_n": 100_000}}
    laptop.write("cautious.yaml", {**cautious, "gate": {"on_uncertifiable": "human"}})
    code, last = laptop.run("--constitution", "cautious.yaml")
    assert (code, laptop.record["sentence"]) == (0, "loans version 1 is pending.")
    notice = told(laptop)
    assert (notice["status"], notice["version"]) == ("pending", 1)
    assert notice["sentence"] == "loans version 1 is pending."
    assert notice["pipeline_state"] == "SUCCEEDED"
    names = [stage["stage"] for stage in laptop.record["stages"]]
    assert names[-1] == "register_model"

    strict = {**CONSTITUTION, "gate": {"on_uncertifiable": "human"}}
    useful = {"metric": "accuracy", "threshold": 0.99}
    strict["principles"] = [{"id": "perfect", "constraint": useful}]
    laptop.write("strict.yaml", strict)
    code, last = laptop.run("--constitution", "strict.yaml")
    assert (code, laptop.record["sentence"]) == (3, last)
    assert laptop.record["stages"][0]["cached"]
    notice = told(laptop)
    assert (notice["status"], notice["decision"]) == ("refused", "fail")
    assert last.startswith("perfect is violated"), "the reason first"
    model = laptop.record["artifacts"]["model"]["identity"]
    assert last.endswith(f"refused, nothing was registered: model {model}.")
    page = (laptop.folder / "runs" / "latest" / "outcome.md").read_text("utf-8")
    assert page.startswith("# Refused")
    assert "| perfect | accuracy ≥ 0.99 | " in page
    assert (notice["sentence"], notice["pipeline_state"]) == (last, "FAILED")

    bold = {**CONSTITUTION, "principles": [dict(CONSTITUTION["principles"][0])]}
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 0.001}
    bold["principles"][0]["constraint"] = gap
    laptop.write("bold.yaml", bold)
    code, last = laptop.run("--constitution", "bold.yaml")
    assert (code, laptop.record["sentence"]) == (2, last)
    notice = told(laptop)
    assert (notice["status"], notice["version"]) == ("crashed", 0)
    assert notice["sentence"] == last
    page = (laptop.folder / "runs" / "latest" / "outcome.md").read_text("utf-8")
    assert page.startswith(f"# Broke off before the gate\n\n{plain(last)}\n")


@pytest.mark.slow
def test_a_receiver_that_is_down_leaves_a_champion_champion(laptop):
    laptop.receiver.answers = [404]
    code, _ = laptop.run()
    assert (code, laptop.record["sentence"]) == (0, "loans version 1 is champion.")
    assert laptop.receiver.requests == [], "nobody asked to be told of a champion"
    log = (laptop.folder / "runs" / "latest" / "log.txt").read_text(encoding="utf-8")
    assert "S3CRET" not in log
    with laptop.store() as server:
        store = open_store(server.uri, environ=server.environ)
        outcome = RunOutcome.read(store, laptop.record["run"])
    assert outcome is not None
    assert (outcome.status, outcome.exit_code) == ("champion", 0)
    assert outcome.model == laptop.record["artifacts"]["model"]["identity"]
