"""The error tree: exit codes, families, and the shape of one sentence."""

from __future__ import annotations

import pytest

from safescale_ammt import errors
from safescale_ammt.errors import SafescaleError, one_of


def _tree(root: type[SafescaleError]) -> set[type[SafescaleError]]:
    return {root}.union(*(_tree(child) for child in root.__subclasses__()))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SafescaleError", 1),
        ("InputError", 2),
        ("ConfigError", 2),
        ("ConstitutionError", 2),
        ("Uncertifiable", 2),
        ("DataError", 2),
        ("StorageError", 1),
        ("StoreInputError", 2),
        ("PreconditionFailed", 1),
        ("ClusterError", 1),
        ("ClusterInputError", 2),
        ("Refusal", 3),
        ("IntegrityError", 3),
        ("Interrupted", 1),
    ],
)
def test_every_error_has_the_exit_code_of_its_family(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_every_error_of_the_module_hangs_in_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    for error in _tree(SafescaleError):
        if error.__module__ == errors.__name__:
            assert error.__name__ in drawn


def test_missing_credentials_are_bad_input_and_a_storage_error() -> None:
    found = errors.StoreInputError("Bucket x does not exist.")
    assert isinstance(found, errors.InputError)
    assert isinstance(found, errors.StorageError)


def test_tampering_is_a_refusal_and_an_uncertifiable_promise_is_bad_input() -> None:
    assert issubclass(errors.IntegrityError, errors.Refusal)
    assert issubclass(errors.Uncertifiable, errors.InputError)


def test_accepted_values_are_listed_in_one_order() -> None:
    assert one_of({"b", "a", "c"}) == "expected one of a, b, c"
    assert one_of({"c": 1, "a": 2}) == "expected one of a, c"
    assert one_of((",", ".", "")) == "expected one of '', ',', '.'"
