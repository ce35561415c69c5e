"""The outcome record: written once per run, read by those without a registry key."""

from __future__ import annotations

import pytest

from safescale_ammt.errors import InputError, SafescaleError, StoreInputError
from safescale_ammt.releasing.run_outcome import STATUSES, RunOutcome, key_of
from safescale_ammt.store.environment import (
    SECRET_KEYS,
    data_store,
    registry_store,
    registry_variable,
)


def test_an_outcome_is_read_as_it_was_written(store):
    assert RunOutcome.read(store, "r-1") is None
    outcome = RunOutcome.now(run="r-1", status="champion", sentence="a\n b", version=3)
    outcome.write(store)
    assert RunOutcome.read(store, "r-1") == outcome
    assert outcome.sentence == "a b"
    RunOutcome.now(run="r-1", status="refused", sentence="No.").write(store)
    again = RunOutcome.read(store, "r-1")
    assert again is not None
    assert again.exit_code == 3


def test_each_status_has_the_exit_code_that_run_gives():
    codes = {
        status: RunOutcome.now(run="r", status=status, sentence="").exit_code
        for status in STATUSES
    }
    assert codes == {
        "champion": 0,
        "pending": 0,
        "refused": 3,
        "not_registered": 0,
        "crashed": 1,
    }


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"[]", b'{"run": "r"}', b'{"a": 1}', b"\xff"]
)
def test_what_is_no_outcome_is_said_to_be_none(file_store, stored):
    file_store.put(key_of("r-1"), stored)
    with pytest.raises(InputError, match="is no outcome of a run"):
        RunOutcome.read(file_store, "r-1")


def test_an_outcome_of_another_schema_is_not_guessed_at(file_store):
    outcome = RunOutcome(run="r-1", status="new", sentence="", at="", schema=2)
    outcome.write(file_store)
    with pytest.raises(InputError, match="another version"):
        RunOutcome.read(file_store, "r-1")


@pytest.mark.parametrize("run", ["", "..", "a/b", "../../ledger"])
def test_a_run_cannot_write_elsewhere(file_store, run):
    with pytest.raises(StoreInputError):
        RunOutcome.now(run=run, status="champion", sentence="").write(file_store)


def test_the_registry_is_the_other_store_unless_it_is_named(tmp_path):
    data, registry = (tmp_path / "data").as_uri(), (tmp_path / "registry").as_uri()
    environ = {"SAFESCALE_STORE": data}
    assert registry_store(environ).uri == data_store(environ).uri == data
    environ["SAFESCALE_REGISTRY_STORE"] = registry
    assert data_store(environ).uri == data
    assert registry_store(environ).uri == registry


def test_the_key_of_one_store_is_never_tried_at_the_other():
    environ = {
        "SAFESCALE_STORE": "s3://data",
        "AWS_ACCESS_KEY_ID": "data",
        "AWS_SECRET_ACCESS_KEY": "data-secret",
        "SAFESCALE_REGISTRY_STORE": "s3://registry",
        "SAFESCALE_REGISTRY_AWS_ACCESS_KEY_ID": "registry",
    }
    with pytest.raises(SafescaleError, match="AWS_SECRET_ACCESS_KEY is not set"):
        registry_store(environ)


def test_each_key_of_the_registrys_secret_has_a_variable_of_its_own():
    names = [registry_variable(key) for key in SECRET_KEYS]
    assert names[0] == "SAFESCALE_REGISTRY_STORE"
    assert names[2] == "SAFESCALE_REGISTRY_AWS_ACCESS_KEY_ID"
    assert not set(names) & set(SECRET_KEYS)


def test_without_a_store_the_sentence_says_what_to_set():
    with pytest.raises(InputError, match="SAFESCALE_STORE is not set"):
        data_store({})
