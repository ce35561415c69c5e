"""`safescale submit --pipeline promote`: approvals from git, to a run, to its word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kfp_api.server import KfpApi
from kfp_api.state import FAILED, RUNNING, SUCCEEDED, Scene
from submit_world import leave_home

from pipelines.cli import run_command
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.releasing.envelope import seal
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.store.uri import open_store

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_home(monkeypatch, tmp_path)


@pytest.fixture
def api() -> Any:
    with KfpApi() as api:
        api.world.script = life(SUCCEEDED)
        yield api


def life(ends: str) -> tuple[Scene, ...]:
    states = {"promote": RUNNING}
    return Scene(RUNNING, states), Scene(ends, {"promote": ends})


def approval(number: int = 3, name: str = "alice") -> dict[str, Any]:
    """A signed Statement; whether it counts is for the step to say."""
    predicate = {"act": "approve", "version": number, "reason": f"{name} > \u2028"}
    return seal({"predicate": predicate}, KEY)


def written(*approvals: Any) -> list[str]:
    """Writes a file each; returns the options that name them."""
    options = []
    for number, one in enumerate(approvals):
        file = Path(f"{number}.json")
        file.write_text(json.dumps(one, indent=2))
        options += ["--approval", str(file)]
    return options


def promote(api: KfpApi, *more: str) -> int:
    quick = () if {"--no-wait", "--upload-only"} & {*more} else ("--poll", "0.05")
    base = ["submit", "--host", api.url, "--pipeline", "promote", *quick]
    return run_command([*base, *more])


def test_a_run_gets_the_approvals_and_the_version_that_they_are_about(
    api: KfpApi, capsys: pytest.CaptureFixture[str]
) -> None:
    files = written(approval(), [approval(name="bob"), approval(name="carol")])
    assert promote(api, "--registry", "loans", *files, "--no-wait") == 0
    (run,) = api.world.runs.values()
    given = run.runtime_config.parameters
    assert (given["registry"], given["version"]) == ("loans", "3")
    lines = given["approvals"].split("\n")
    assert lines == [
        canonical_json(approval(name=who)).decode() for who in ("alice", "bob", "carol")
    ]
    assert run.display_name.startswith("promote-loans-")
    assert run.service_account == "safescale-pipeline"
    assert run.description.startswith("Promotes loans version pending, 2 files of")
    assert list(run.pipeline_spec["pipeline_spec"]["root"]["dag"]["tasks"]) == [
        "promote"
    ]
    # Nothing of it may be reused, so nothing is said of what is not.
    assert "anew" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "ends", "code"), [("champion", SUCCEEDED, 0), ("refused", FAILED, 3)]
)
def test_it_exits_by_the_word_of_the_step(
    api: KfpApi,
    capsys: pytest.CaptureFixture[str],
    status: str,
    ends: str,
    code: int,
) -> None:
    api.world.script = life(ends)
    store = Path("store").absolute().as_uri()
    more = ("--registry", "loans", "--version", "3", "--name", "one")
    assert promote(api, *more, "--no-wait") == 0
    (run,) = api.world.runs
    said = RunOutcome.now(run=run, status=status, sentence="What the step said.")
    said.write(open_store(store))
    assert promote(api, *more, "--store", store) == code
    told = capsys.readouterr()
    assert (told.err if code else told.out).splitlines()[-1] == "What the step said."
    base = ["submit", "--host", api.url, "--follow", run, "--store", store]
    assert run_command(base) == code


def test_a_failed_step_without_a_record_says_where_it_broke(
    api: KfpApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.world.script = life(FAILED)
    store = Path("store").absolute().as_uri()
    assert promote(api, "--registry", "loans", "--store", store) == 1
    said = capsys.readouterr().err
    assert "broke off in 'Promote' before its gate had spoken" in said, said


def test_a_version_of_the_pipeline_is_uploaded_under_its_own_name(
    api: KfpApi, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--upload-only", "--version-name", "1")
    assert promote(api, *more, "--registry", "loans") == 0
    assert promote(api, *more, "--registry", "loans") == 0
    told = capsys.readouterr().out
    assert "Uploaded version 1 of safescale-promote." in told
    assert "Version 1 of safescale-promote is there, with these very bytes." in told
    assert "The version's form names registry loans and version pending." in told
    (pipeline,) = api.world.pipelines.values()
    assert pipeline.display_name == "SAFESCALE-AMMT: promote"
    (version,) = api.world.versions.values()
    form = version.pipeline_spec["pipeline_spec"]["root"]["inputDefinitions"]
    assert form["parameters"]["registry"]["defaultValue"] == "loans"
    assert promote(api, "--upload-only", "--version-name", "2") == 0
    assert "names no registry" in capsys.readouterr().out


def key_file() -> None:
    Path("0.json").write_text("-----BEGIN PRIVATE KEY-----\nhalf-a-key")


def changed() -> None:
    one = approval()
    Path("0.json").write_text(json.dumps({**one, "payload": one["payload"][4:]}))


@pytest.mark.parametrize(
    ("make", "more", "says"),
    [
        (lambda: None, (), "0.json does not exist"),
        (lambda: Path("0.json").touch(), (), "0.json is empty"),
        (lambda: written("x"), (), "0.json holds str in place 1"),
        (key_file, (), "0.json holds a private key"),
        (changed, (), "envelope is none of ours"),
        (lambda: written(approval(3), approval(4)), (), "different versions"),
        (lambda: written(approval()), ("--version", "4"), "are about version 3"),
        (lambda: written(approval()), ("--param", "version=4"), "no parameter to"),
        (lambda: written(approval()), ("--param", "cpu=x"), "--param cpu"),
        (lambda: Path("0.json").write_text("[" * 70_000), (), "bytes"),
    ],
)
def test_what_no_step_could_use_starts_nothing(
    api: KfpApi, capsys: pytest.CaptureFixture[str], make: Any, more: Any, says: str
) -> None:
    make()
    # Written or not: one that is missing is named as well.
    there = sorted(path.name for path in Path().glob("*.json")) or ["0.json"]
    files = [word for name in there for word in ("--approval", name)]
    code = 3 if make is changed else 2
    assert promote(api, "--registry", "loans", *files, *more) == code
    said = capsys.readouterr().err
    assert says in said
    assert "half-a-key" not in said
    assert len(said.splitlines()) == 1
    assert not api.world.runs


def test_a_promotion_of_no_named_model_starts_nothing(
    api: KfpApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(api) == 2
    assert "--registry is not given" in capsys.readouterr().err
    assert not api.requests
