"""The whole pipeline in the stage images: caged, watched, stopped, killed, resumed."""

from __future__ import annotations

import json
import platform
import signal
import threading
import time
from pathlib import Path

import pytest
from laptop import CONSTITUTION, STAGES, Laptop, end_hard, wait_for
from patience import PATIENCE, eventually
from receiver import receiving

from pipelines.local.container_engine import PLACE, RUN, STAGE
from safescale_ammt.files.artifacts import verify
from safescale_ammt.store.uri import open_store

pytestmark = pytest.mark.xdist_group("containers")
WITH_STORE = {"prepare_data", "evaluate_safety", "register_model"}
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SAFESCALE_STORE")
CHANGES_NOTHING = ("--set", "search.rung_steps=1000000")
"""... but that the search never ends."""


class Docked(Laptop):
    """A laptop that runs its stages in containers."""

    def __init__(self, folder: Path, engine) -> None:
        super().__init__(folder)
        self.engine = engine

    def run(self, *arguments: str) -> tuple[int, str]:
        return super().run("--runner", "docker", *arguments)

    def start_run(self, *arguments: str):
        return super().start_run("--runner", "docker", *arguments)

    def containers(self, stage: str = "") -> list:
        """Lists this laptop's containers, dead ones too."""
        mine = [f"{PLACE}={platform.node()}:{self.folder / '.safescale'}"]
        if stage:
            mine.append(f"{STAGE}={stage}")
        wanted = {"label": mine}
        return self.engine.containers.list(
            all=True, filters=wanted, ignore_removed=True
        )

    def running(self, stage: str):
        """Waits until a stage's container runs and returns it."""

        def found():
            return [c for c in self.containers(stage) if c.status == "running"]

        return eventually(found)[0]

    def is_clear(self) -> bool:
        """Waits until no process and no container of this laptop is left."""
        eventually(lambda: not self.containers())
        return self.is_quiet()


class Seen:
    """Looks into every container of a laptop while it runs."""

    def __init__(self, laptop: Docked) -> None:
        self.laptop = laptop
        self.attrs: dict[str, dict] = {}
        self.status: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        from docker.errors import APIError

        while not self._over.wait(0.1):
            for container in self.laptop.containers():
                stage = container.labels[STAGE]
                if stage in self.status or container.status != "running":
                    continue
                self.attrs[stage] = container.attrs
                try:
                    said = container.exec_run(["cat", "/proc/1/status"]).output
                except APIError:
                    continue  # it ended just now
                self.status[stage] = said.decode()

    def environ(self, stage: str) -> dict[str, str]:
        pairs = self.attrs[stage]["Config"]["Env"]
        return dict(pair.split("=", 1) for pair in pairs)

    def mounts(self, stage: str, writable: bool) -> set[Path]:
        mounts = self.attrs[stage]["Mounts"]
        return {Path(m["Destination"]) for m in mounts if m["RW"] is writable}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, engine):
    """A laptop on which one run in containers went through, and what was seen."""
    laptop = Docked(tmp_path_factory.mktemp("docked"), engine)
    with laptop.store(), Seen(laptop) as seen:
        code, last = laptop.run()
        assert code == 0, last
        laptop.first = laptop.record
        yield laptop, seen


def test_a_run_in_containers_makes_a_champion(finished):
    laptop, _ = finished
    record = laptop.first
    assert (record["exit_code"], record["runner"]) == (0, "docker")
    assert record["sentence"] == "loans version 1 is champion."
    assert [stage["stage"] for stage in record["stages"]] == list(STAGES)
    assert {i[:7] for i in record["images"].values()} == {"sha256:"}
    assert laptop.containers() == []


def test_its_artifacts_lie_in_the_object_store_and_are_ours_to_change(
    finished, tmp_path
):
    laptop, _ = finished
    record = laptop.first
    with laptop.store() as server:
        store = open_store(server.uri, environ=server.environ)
        for name in ("dataset", "holdout", "architecture", "model", "verdict"):
            artifact = record["artifacts"][name]
            key = f"runs/{record['run']}/{artifact['stage']}/{name}"
            store.download_folder(key, tmp_path / name)
            assert verify(tmp_path / name).identity == artifact["identity"]
            for path in Path(artifact["path"]).rglob("*"):
                asked = 0o070 if path.is_dir() else 0o060
                assert path.stat().st_mode & asked == asked, path


@pytest.mark.parametrize("stage", STAGES)
def test_every_container_was_seen_without_root_and_without_a_way_to_it(finished, stage):
    _, seen = finished
    fields = dict(
        line.split(":", 1) for line in seen.status[stage].splitlines() if ":" in line
    )
    assert fields["Uid"].split() == ["10001"] * 4
    assert set(fields["CapEff"].strip() + fields["CapBnd"].strip()) == {"0"}
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"
    host = seen.attrs[stage]["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] == (4 if stage in STAGES[1:3] else 2) << 30
    assert host["MemorySwap"] == host["Memory"]
    assert host["PidsLimit"] > 0
    assert host["NanoCpus"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert list(host["Tmpfs"]) == ["/tmp"]


def test_only_stages_with_a_secret_have_keys_and_a_network(finished):
    _, seen = finished
    for stage in STAGES:
        keys = [name for name in SECRETS if name in seen.environ(stage)]
        network = seen.attrs[stage]["HostConfig"]["NetworkMode"]
        if stage in WITH_STORE:
            assert (keys, network) == (list(SECRETS), "host")
        else:
            assert (keys, network) == ([], "none")


def test_a_stage_sees_its_inputs_and_its_own_folder_and_no_more(finished):
    laptop, seen = finished
    paths = {n: Path(a["path"]) for n, a in laptop.first["artifacts"].items()}
    raw = {laptop.folder / "people.csv", laptop.folder / "sealed.csv"}
    expected = {
        "prepare_data": raw,
        "search_architecture": {paths["dataset"]},
        "train_agents": {paths["dataset"], paths["architecture"]},
        "evaluate_safety": {
            paths[n] for n in ("dataset", "holdout", "architecture", "model")
        },
        "register_model": {paths["model"], paths["verdict"]},
    }
    for stage, inputs in expected.items():
        trusted = {
            Path(value)
            for name, value in seen.environ(stage).items()
            if name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
        }
        assert seen.mounts(stage, writable=False) - trusted == inputs
        assert seen.mounts(stage, writable=True) - {Path("/tmp")} == {
            next(Path(a["path"]).parent for a in _of(laptop, stage))
        }


def _of(laptop: Docked, stage: str) -> list[dict]:
    found = laptop.first["artifacts"].values()
    return [artifact for artifact in found if artifact["stage"] == stage]


def test_the_second_run_takes_every_stage_but_the_gate_from_the_cache(finished):
    laptop, _ = finished
    before = laptop.identities("model", "verdict", "version")
    # What a stage may take is no part of what it makes.
    assert laptop.run("--param", "memory=1Gi")[0] == 0
    cached = {s["stage"]: s["cached"] for s in laptop.record["stages"]}
    assert cached == {name: name != "register_model" for name in STAGES}
    assert laptop.identities("model", "verdict", "version") == before
    assert laptop.containers() == []


def test_a_stage_in_a_container_makes_what_it_makes_in_a_process(finished, engine):
    laptop, _ = finished
    assert Laptop.run(laptop)[0] == 0
    assert not any(stage["cached"] for stage in laptop.record["stages"])
    for name in ("dataset", "holdout", "architecture", "model"):
        identity = laptop.record["artifacts"][name]["identity"]
        assert identity == laptop.first["artifacts"][name]["identity"], name


def test_a_refusal_in_a_container_is_a_refusal(finished):
    laptop, _ = finished
    strict = {**CONSTITUTION, "gate": {"on_uncertifiable": "human"}}
    promise = {"metric": "accuracy", "threshold": 0.99}
    strict["principles"] = [{"id": "perfect", "constraint": promise}]
    laptop.write("strict.yaml", strict)
    code, last = laptop.run("--constitution", "strict.yaml")
    assert (code, laptop.record["sentence"]) == (3, last)
    assert laptop.record["verdict"]["decision"] == "fail"
    assert [s["status"] for s in laptop.record["stages"]] == ["finished"] * 4 + [
        "failed"
    ]
    assert laptop.containers() == []


def test_bad_input_in_a_container_is_bad_input(finished):
    laptop, _ = finished
    bold = {**CONSTITUTION, "principles": [dict(CONSTITUTION["principles"][0])]}
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 0.001}
    bold["principles"][0]["constraint"] = gap
    laptop.write("bold.yaml", bold)
    code, last = laptop.run("--constitution", "bold.yaml")
    assert (code, laptop.record["sentence"]) == (2, last)
    assert [s["stage"] for s in laptop.record["stages"]] == list(STAGES[:2])
    assert laptop.containers() == []


def test_a_stage_that_needs_too_much_memory_says_what_gives_it_more(finished):
    laptop, _ = finished
    code, last = laptop.run("--no-cache", "--param", "memory=24Mi")
    assert code == 1
    assert last == (
        "prepare_data was killed: it needed more memory than its limit of 24Mi; "
        "--param memory=... gives it more, and finished stages are kept."
    )
    assert laptop.containers() == []


def test_the_exit_task_runs_in_a_container_too_and_changes_nothing(
    finished, monkeypatch
):
    laptop, _ = finished
    with receiving() as receiver:
        monkeypatch.setenv("SAFESCALE_WEBHOOK_URL", receiver.url)
        code, last = laptop.run("--no-cache", "--param", "memory=24Mi")
    assert code == 1
    assert last.startswith("prepare_data was killed: it needed more memory")
    assert [s["stage"] for s in laptop.record["stages"]] == ["prepare_data"]
    (request,) = receiver.requests
    assert (request.notice["status"], request.notice["sentence"]) == ("crashed", last)
    assert laptop.containers() == []


def test_a_stage_that_hangs_is_stopped(finished):
    laptop, _ = finished
    code, last = laptop.run(*CHANGES_NOTHING, "--stage-timeout", "8")
    assert code == 1
    assert last.startswith("search_architecture took longer than 8 s and was stopped")
    assert [s["cached"] for s in laptop.record["stages"][:1]] == [True]
    assert laptop.containers() == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_container_and_is_recorded(finished, signum):
    laptop, _ = finished
    process = laptop.start_run(*CHANGES_NOTHING)
    laptop.running("search_architecture")
    process.send_signal(signum)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output.splitlines()[-1] == laptop.record["sentence"]
    assert signum.name in laptop.record["sentence"]
    assert laptop.containers() == []


def test_a_run_that_is_killed_leaves_no_container(finished):
    laptop, _ = finished
    process = laptop.start_run(*CHANGES_NOTHING)
    laptop.running("search_architecture")
    end_hard(process)
    eventually(lambda: not laptop.containers())
    assert laptop.record["exit_code"] is None


def test_a_runner_that_is_killed_leaves_no_container(finished):
    laptop, _ = finished
    process = laptop.start_run(*CHANGES_NOTHING)
    laptop.running("search_architecture")
    _runner(laptop).kill()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "runner vanished" in output.splitlines()[-1]
    assert laptop.containers() == []


def test_when_both_are_killed_the_next_run_removes_the_container(finished):
    laptop, _ = finished
    process = laptop.start_run(*CHANGES_NOTHING)
    container = laptop.running("search_architecture")
    runner = _runner(laptop)
    process.send_signal(signal.SIGSTOP)  # so that neither sees the other go
    runner.suspend()
    runner.kill()
    end_hard(process)
    assert [c.id for c in laptop.containers()] == [container.id]
    assert laptop.run()[0] == 0
    assert laptop.containers() == []


def _runner(laptop: Docked):
    return next(p for p in laptop.processes() if p.name() == "safescale-child")


@pytest.mark.slow
def test_a_store_that_goes_away_for_20_seconds_is_waited_for(tmp_path, engine):
    laptop = Docked(tmp_path / "laptop", engine)
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    with laptop.without_store():
        laptop.running("search_architecture")
        time.sleep(20)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    log = (laptop.folder / "runs" / "latest" / "log.txt").read_text()
    assert log.count("does not answer as it should") <= 1
    assert laptop.is_clear()


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_run_and_the_next_goes_on(tmp_path, engine):
    laptop = Docked(tmp_path / "laptop", engine)
    with laptop.store():
        process = laptop.start_run()
        wait_for(process, "search_architecture ...")
        with laptop.without_store():
            output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        last = output.splitlines()[-1]
        assert last == laptop.record["sentence"]
        assert "the store at http://127.0.0.1" in last
        assert "could not be reached" in last
        assert laptop.containers() == []
        assert laptop.run()[0] == 0
    cached = {s["stage"]: s["cached"] for s in laptop.record["stages"]}
    assert cached["prepare_data"]
    assert cached["search_architecture"]
    assert laptop.is_clear()


@pytest.mark.slow
@pytest.mark.timeout(5 * PATIENCE)
def test_adult_goes_through_in_containers(tmp_path, engine):
    laptop = Docked(tmp_path / "laptop", engine)
    with laptop.store() as server:
        with laptop.start("run", "--runner", "docker") as process:
            output, _ = process.communicate(timeout=4 * PATIENCE)
        assert process.returncode == 0, output
        record = laptop.record
        assert record["version"]["status"] in ("champion", "pending")
        store = open_store(server.uri, environ=server.environ)
        for name, artifact in record["artifacts"].items():
            assert artifact["uri"].startswith(f"{server.uri}/runs/{record['run']}/")
            key = artifact["uri"].removeprefix(f"{server.uri}/")
            found = artifact["kind"] == "file" or any(store.list(f"{key}/"))
            assert found, name
    assert laptop.is_clear()
    stages = {s["stage"]: s["seconds"] for s in record["stages"]}
    print(json.dumps(stages))


def test_a_store_in_a_folder_is_refused_before_anything_is_spent(tmp_path):
    laptop = Laptop(tmp_path / "laptop")
    place = (tmp_path / "store").as_uri()
    code, last = laptop.run("--runner", "docker", "--store", place)
    assert code == 2
    assert "a container writes to no folder of this machine" in last
    assert laptop.record["stages"] == []


def test_an_engine_that_does_not_answer_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    laptop = Laptop(tmp_path / "laptop")
    code, last = laptop.run("--runner", "docker")
    assert code == 2
    assert last.startswith(f"No container engine answers at unix://{tmp_path}/no.sock;")
    assert (laptop.record["stages"], laptop.record["runner"]) == ([], "docker")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("disk=1Gi", "--param names 'disk', unknown; expected one of cpu, memory,"),
        ("memory=lots", "--param memory is 'lots', no quantity"),
    ],
)
def test_a_wrong_limit_is_bad_input(tmp_path, given, words):
    laptop = Laptop(tmp_path / "laptop")
    code, last = laptop.run("--param", given)
    assert code == 2
    assert words in last


def test_labels_are_what_people_see(finished):
    laptop, seen = finished
    for stage in STAGES:
        labels = seen.attrs[stage]["Config"]["Labels"]
        assert labels[RUN] == laptop.first["run"]
        assert seen.attrs[stage]["Name"] == f"/safescale-{laptop.first['run']}-{stage}"
