"""The Kubeflow on kind for `make cluster-test`: what it asks of kind and kubectl.

The programs are doubles that write down what they were given. Whether KFP and Trainer
come up, only a machine with a container engine shows.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster.api import ClusterApi
from kfp_api.server import KfpApi
from kfp_api.world import furnish, put
from policy.objects import called, of_kind
from policy.schemas import VERSIONS, schema_complaint

from pipelines.cli import run_command
from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from safescale_ammt.config.kubernetes_names import (
    DATASETS_SECRET,
    REGISTRY_SECRET,
    STORE_SECRET,
    TRAINING_SECRET,
)

ROOT = Path(__file__).parents[2]
KIND = ROOT / "tests" / "acceptance" / "kind.py"
POLICIES = ROOT / "manifests" / "secrets" / "policies" / "seaweedfs.json"
SECRETS = {STORE_SECRET, REGISTRY_SECRET, TRAINING_SECRET, DATASETS_SECRET}
PROGRAMS = ("docker", "kind", "kubectl")
_DOUBLE = """#!{python} -I
import json, sys
given = sys.stdin.read() if any(a.endswith("-") for a in sys.argv) else ""
print("not for the environment")
with open({log!r}, "a") as log:
    print(json.dumps([{program!r}, sys.argv[1:], given]), file=log)
sys.exit({fails!r} in sys.argv)
"""


@dataclass(frozen=True)
class Called:
    """What `kind.py` did: its end, and what each program was given."""

    code: int
    out: str
    err: str
    calls: tuple[tuple[str, list[str], str], ...]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """All that was applied from standard input."""
        return [
            json.loads(given)
            for program, arguments, given in self.calls
            if program == "kubectl" and arguments[-2:] == ["-f", "-"]
        ]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Returns those of a kind."""
        return of_kind(self.objects, kind)

    @property
    def environ(self) -> dict[str, str]:
        """What it printed."""
        return dict(line.split("=", 1) for line in self.out.splitlines())

    def given(self, program: str, *words: str) -> list[list[str]]:
        """Returns the arguments of all calls that hold these words."""
        return [a for p, a, _ in self.calls if p == program and {*words} <= {*a}]


def call(
    folder: Path, *, without: str = "", fails: str = "", kubeconfig: str = ""
) -> Called:
    """Runs `kind.py up` with doubles on the PATH, one of them missing or failing."""
    programs, log = folder / "bin", folder / "log"
    programs.mkdir()
    log.touch()
    for name in {*PROGRAMS} - {without}:
        text = _DOUBLE.format(
            python=sys.executable, log=str(log), program=name, fails=fails
        )
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environ = {"PATH": str(programs), "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    if kubeconfig:
        environ["KUBECONFIG"] = kubeconfig
    done = subprocess.run(
        [sys.executable, str(KIND), "up"],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    calls = tuple(tuple(json.loads(line)) for line in log.read_text().splitlines())
    return Called(done.returncode, done.stdout, done.stderr, calls)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Called:
    done = call(tmp_path_factory.mktemp("kind"))
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_that_it_applies_fits_the_strict_schema_of(version, made):
    kinds = {thing["kind"] for thing in made.objects}
    assert kinds == {"Secret", "Deployment", "Service"}
    assert [s for o in made.objects if (s := schema_complaint(o, version))] == []
    assert len({called(thing) for thing in made.objects}) == len(made.objects)


def test_the_policies_of_keys_have_the_identities_that_it_fills_in():
    identities = json.loads(POLICIES.read_text(encoding="utf-8"))["identities"]
    names = {identity["name"] for identity in identities}
    assert names == {*SECRETS, "safescale-auditor"}  # a person's, in no secret
    for identity in identities:
        assert all(":REPLACE-ME/" in action for action in identity["actions"])


def test_each_secret_has_a_key_that_opens_its_prefixes_only(made):
    secrets = {o["metadata"]["name"]: _values(o) for o in made.of("Secret")}
    store = json.loads(secrets["objects-keys"]["s3.json"])
    assert "REPLACE-ME" not in json.dumps(secrets)
    for identity in store["identities"]:
        (key,) = identity["credentials"]
        mine = secrets[identity["name"]]
        assert key["accessKey"] == mine["AWS_ACCESS_KEY_ID"]
        assert key["secretKey"] == mine["AWS_SECRET_ACCESS_KEY"]
        # An action without a bucket opens all of them.
        bucket = secrets[STORE_SECRET]["SAFESCALE_STORE"].removeprefix("s3://")
        assert all(
            re.fullmatch(rf"\w+:{bucket}/[a-z-]+/\*", a) for a in identity["actions"]
        )
    keys = {secrets[name]["AWS_ACCESS_KEY_ID"] for name in SECRETS}
    assert len(keys) == len(SECRETS)


def test_the_doctor_misses_no_secret_there(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAFESCALE_STORE", raising=False)
    with KfpApi() as kubeflow, ClusterApi() as cluster:
        furnish(cluster)
        # The datasets' is one that a plane may be without.
        for name in {*SECRETS, "safescale-pull"} - {DATASETS_SECRET}:
            cluster.delete("secrets", name)
        for thing in made.of("Secret"):
            put(cluster, thing)
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        kubeflow.world.multi_user = False
        where = ("--host", kubeflow.url, "--patience", "0")
        run_command(["doctor", "--json", *where, "--set", "training.backend=trainjob"])
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    about = [*(f"secret {name}" for name in SECRETS), "secrets apart", "pull secret"]
    assert {name: found[name]["state"] for name in about} == dict.fromkeys(about, "ok")


def test_this_machine_reaches_store_and_api_by_the_ports_of_the_node(made):
    (_, _, nodes), *_ = made.calls
    (node,) = json.loads(nodes)["nodes"]
    ports = {p["containerPort"]: p["hostPort"] for p in node["extraPortMappings"]}
    services = {
        o["metadata"]["name"]: o["spec"] for o in of_kind(made.objects, "Service")
    }
    (deployment,) = of_kind(made.objects, "Deployment")
    pod = deployment["spec"]["template"]["metadata"]["labels"]
    assert services["objects"]["selector"] == pod
    ways = {"AWS_ENDPOINT_URL": "objects", "SAFESCALE_KFP_HOST": "safescale-kfp"}
    for variable, name in ways.items():
        (port,) = services[name]["ports"]
        assert made.environ[variable] == f"http://127.0.0.1:{ports[port['nodePort']]}"


def test_its_nodes_hold_the_images_that_a_run_names(made):
    (loaded,) = made.given("kind", "load")
    pipeline = CompiledPipeline.parse(compile_train())
    named = {e["container"]["image"] for e in pipeline.executors.values()}
    assert named <= {*loaded}


def test_folders_of_manifests_are_there_and_others_are_of_a_release(made):
    folders = [a[a.index("-k") + 1] for a in made.given("kubectl", "apply", "-k")]
    ours = [folder for folder in folders if folder.startswith(str(ROOT))]
    assert [Path(f, "kustomization.yaml").is_file() for f in ours] == [True]
    others = [folder for folder in folders if folder not in ours]
    assert len(others) == 3
    assert all(re.search(r"\?ref=v?\d+\.\d+\.\d+$", folder) for folder in others)


def test_what_it_prints_is_an_environment_that_the_suite_reads(made, tmp_path):
    suite = (KIND.parent / "conftest.py").read_text(encoding="utf-8")
    for name in made.environ:
        assert name in suite or name.startswith("AWS_")
    assert made.environ["KUBECONFIG"].endswith("/.kube/config")
    other = call(tmp_path, kubeconfig="/elsewhere/config")
    assert other.environ["KUBECONFIG"] == "/elsewhere/config"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"without": "kubectl"}, "kubectl is not installed: docker, kind and kubectl "),
        ({"fails": "rollout"}, "`kubectl rollout status` ended with 1, its reason"),
        ({"fails": "create"}, "`kind create cluster` ended with 1, its reason"),
    ],
    ids=["missing", "later", "first"],
)
def test_a_program_that_is_missing_or_fails_is_one_sentence(fault, sentence, tmp_path):
    done = call(tmp_path, **fault)
    assert (done.code, done.out) == (1, "")
    assert sentence in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def _values(secret: dict[str, Any]) -> dict[str, str]:
    return {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
