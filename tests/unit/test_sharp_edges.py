"""Sharp edges of the shared words: input that once slipped through or broke them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from safescale_ammt.config.sections import DataConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ConfigError, ConstitutionError, SafescaleError
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import read_json, write_json

ACCURACY = {"metric": "accuracy", "threshold": 0.8}
KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
OTHER_KEY = "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="


def of(*constraints: dict[str, Any], **top: Any) -> dict[str, Any]:
    listed = [{"id": f"p{i}", "constraint": c} for i, c in enumerate(constraints)]
    return {"schema": 1, "principles": listed, **top}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    with writing(tmp_path / "a", kind="dataset", stage="prepare_data") as draft:
        (draft.folder / "x.json").write_bytes(b"{}")
        (draft.folder / "log").write_bytes(b"abc")
        draft.outside_identity.add("log")
    return tmp_path / "a"


@pytest.mark.parametrize("key", ["stage", "config_digest", "code_version", "size"])
def test_a_changed_field_outside_identity_is_found(artifact: Path, key: str) -> None:
    raw = read_json(artifact / "manifest.json")
    (raw["files"]["x.json"] if key == "size" else raw)[key] = 77
    write_json(artifact / "manifest.json", raw)
    with pytest.raises(SafescaleError):
        verify(artifact)


@pytest.mark.parametrize("kind", [float("nan"), "\ud800"])
def test_a_manifest_with_impossible_values_is_one_clear_sentence(
    artifact: Path, kind: Any
) -> None:
    raw = read_json(artifact / "manifest.json")
    (artifact / "manifest.json").write_text(json.dumps({**raw, "kind": kind}))
    with pytest.raises(SafescaleError):
        verify(artifact)


def test_a_linked_folder_is_found(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (artifact / "link").symlink_to(tmp_path / "other")
    with pytest.raises(SafescaleError):
        verify(artifact)


def test_a_folder_given_as_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(SafescaleError):
        read_json(tmp_path)
    with pytest.raises(ConstitutionError):
        Constitution.load(tmp_path)


def test_writing_over_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with (
        pytest.raises(SafescaleError),
        writing(tmp_path / "a", kind="dataset", stage="s"),
    ):
        pass


@pytest.mark.parametrize(
    "raw",
    [
        of(
            {
                "metric": "calibration_error",
                "group": ["a"],
                "threshold": 0.1,
                "tier": "soft",
            }
        ),
        of(
            {
                "metric": "calibration_error",
                "group": 5,
                "threshold": 0.1,
                "tier": "soft",
            }
        ),
        of({**ACCURACY, "threat": {"eps": 0.1}}),
        of({**ACCURACY, "threshold": 10**400}),
        of(ACCURACY, human={"may_override": 5}),
        of(ACCURACY, human={"never": None}),
        of(ACCURACY, human={"may_override": [["soft"]]}),
        of(ACCURACY, human={"may_override": ["failed_hard"]}),
        of(ACCURACY, human={"may_override": ["inviolable"], "never": []}),
        of(ACCURACY, human={"approvers": {"a": "ed25519:"}}),
        of(
            ACCURACY,
            human={"approvers": {"a": KEY, "A": OTHER_KEY}, "quorum": 2},
        ),
        of(ACCURACY, constitution={"id": "\ud800"}),
    ],
)
def test_a_bad_value_is_one_clear_sentence(raw: Any) -> None:
    with pytest.raises(ConstitutionError):
        Constitution.from_dict(raw)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "schema: 1\nprinciples:\n"
        " - {id: a, constraint: {metric: accuracy, threshold: .5, threshold: .1}}\n"
    )
    with pytest.raises(ConstitutionError):
        Constitution.load(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("section", "raw"),
    [
        (DataConfig, {"merges": {"m": {"values": {"x": datetime.date(2020, 1, 1)}}}}),
        (DataConfig, {"merges": {"m": {"column": float("nan")}}}),
        (DataConfig, {"merges": {"m": {"column": None}}}),
        (DataConfig, {"label": "\ud800"}),
        (TrainingConfig, {"learning_rate": 10**400}),
    ],
)
def test_a_bad_config_value_is_one_clear_sentence(section: Any, raw: Any) -> None:
    with pytest.raises(ConfigError):
        section.from_params(raw)


def test_a_principle_text_of_null_is_empty_or_refused() -> None:
    raw = of(ACCURACY)
    raw["principles"][0]["text"] = None
    assert Constitution.from_dict(raw).principles[0].text != "None"


def test_a_constitution_that_no_parameter_can_carry_is_refused() -> None:
    raw = of(ACCURACY)
    raw["principles"][0]["text"] = "x" * (1 << 16)
    with pytest.raises(ConstitutionError, match="at most 65536 fit"):
        Constitution.from_dict(raw)


def test_a_source_digest_that_is_no_digest_is_refused() -> None:
    with pytest.raises(ConfigError, match="64 hex digits"):
        DataConfig.from_params({"source_digest": "abc"})
