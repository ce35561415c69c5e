"""Images from their files to a registered version; the same rows from every form."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import preparing
from image_files import images, write_folder, write_idx, write_npz
from laptop import WORKLOAD

from pipelines.cli import run_command
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.stages import (
    evaluate_safety,
    register_model,
    search_architecture,
    train_agents,
)
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store

RULE: dict[str, Any] = {
    "schema": 1,
    "constitution": {"id": "shapes", "version": "1.0.0", "owner": "tests"},
    "principles": [
        {
            "id": "every-class",
            "constraint": {
                "metric": "worst_group_error",
                "group": "shape",
                "threshold": 0.4,
            },
        },
        {
            "id": "useful",
            "constraint": {
                "metric": "accuracy",
                "reference": "unconstrained_twin",
                "delta": -0.05,
                "floor": 0.6,
            },
        },
    ],
}
DATA: dict[str, Any] = {
    "label": "label",
    "label_map": {"0": "low", "1": "middle", "2": "high"},
    "merges": {"shape": {"column": "label", "values": {}}},
}
DEVELOPMENT, SEALED = images(700, seed=1), images(400, seed=2)


def sources(folder: Path, form: str, every: int = 1) -> dict[str, Any]:
    """Writes rows in a form; returns the keys of the config that name them."""
    development, sealed = (
        (pixels[::every], label[::every]) for pixels, label in (DEVELOPMENT, SEALED)
    )
    if form == "idx":
        train, test = (
            write_idx(folder / "idx", name, *rows)
            for name, rows in (("train", development), ("t10k", sealed))
        )
    elif form == "npz":
        (folder / "npz").mkdir()
        train = write_npz(folder / "npz" / "a.npz", *development)
        test = write_npz(folder / "npz" / "b.npz", *sealed)
    else:
        train = write_folder(folder / "a", *development)
        test = write_folder(folder / "b", *sealed)
    return {**DATA, "format": form, "source": train, "sealed_source": test}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts of all stages, of IDX files, and their store."""
    folder = tmp_path_factory.mktemp("images")
    names = ("dataset", "holdout", "architecture", "model", "verdict", "version")
    places = [folder / name for name in names]
    dataset, holdout, architecture, model, verdict, version = places
    environ = {STORE: (folder / "store").as_uri()}
    preparing.run(sources(folder, "idx"), dataset, holdout)
    training = {**WORKLOAD["training"], "steps": 120}
    search_architecture.run(dataset, RULE, WORKLOAD["search"], training, architecture)
    train_agents.run(dataset, architecture, RULE, training, model)
    evaluate_safety.run(*places[:4], RULE, {}, verdict, environ=environ)
    register_model.run(
        model, verdict, RULE, {"name": "shapes"}, version, environ=environ
    )
    return folder


def test_all_five_stages_end_with_a_champion(world: Path) -> None:
    registry = Registry(open_store((world / "store").as_uri()), "shapes")
    assert [v.status for v in registry.versions()] == ["champion"]
    verdict = read_json(world / "verdict" / "verdict.json")
    assert verdict["decision"] == "pass"
    page = (world / "verdict" / "report.html").read_text()
    assert "Rates by shape" in page
    assert "selection-rate gap, shape" not in page
    assert "Whether images tell a sensitive column is not looked for" in page


def test_bundle_verifies(world: Path, tmp_path: Path) -> None:
    registry = Registry(open_store((world / "store").as_uri()), "shapes")
    registry.get_bundle(registry.versions()[-1], tmp_path / "bundle")
    assert run_command(["verify", str(tmp_path / "bundle")]) == 0


def predicted(model: Path, rows: Path, output: Path) -> list[dict[str, str]]:
    command = ["predict", str(model), "--data", str(rows), "-o", str(output)]
    assert run_command(command) == 0
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_form_of_images_is_predicted_alike(world: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "f", *SEALED)
    write_npz(tmp_path / "a.npz", *SEALED)
    write_idx(tmp_path / "i", "t10k", *SEALED)
    rows = [tmp_path / "i" / "t10k-images-idx3-ubyte.gz", tmp_path / "a.npz"]
    output = tmp_path / "answers.csv"
    first, second, third = (
        predicted(world / "model", each, output) for each in (*rows, tmp_path / "f")
    )
    assert first == second
    assert [row["score"] for row in third] == [row["score"] for row in first]
    assert third[0]["file"] == "0/00000.png"
    names = np.array(["low", "middle", "high"])[SEALED[1]]
    right = np.array([row["prediction"] for row in first]) == names
    assert right.mean() > 0.8


def test_images_of_another_size_are_not_predicted(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 7, 6), np.uint8))
    command = ["predict", str(world / "model"), "--data", str(tmp_path / "a.npz")]
    assert run_command([*command, "-o", str(tmp_path / "o.csv")]) == 2
    said = capsys.readouterr().err
    assert "3 images are of another size than the 1 x 6 x 6" in said
    assert "1 x 7 x 6" in said


def test_the_same_images_are_the_same_rows_in_every_form(
    world: Path, tmp_path: Path
) -> None:
    expected = read_manifest(world / "dataset")
    with preparing.whole(world / "holdout") as folder:
        keys = RowKeys.load(folder)
        known = {kind: keys.whole[kind].tobytes() for kind in ("varying",)}
    for form in ("npz", "image_folder"):
        place = tmp_path / form
        place.mkdir()
        preparing.run(sources(place, form), place / "dataset", place / "holdout")
        found = read_manifest(place / "dataset")
        # All but what names the bytes of the files.
        same = {name for name, entry in found.files.items() if entry.identity} - {
            "source.json"
        }
        assert len(same) >= 7
        for name in same:
            assert found.files[name].sha256 == expected.files[name].sha256, name
        with preparing.whole(place / "holdout") as folder:
            keys = RowKeys.load(folder)
            assert keys.whole["varying"].tobytes() == known["varying"]


def test_a_store_gives_the_artifacts_that_files_give(
    s3_store: Store,
    s3_environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    local = sources(tmp_path, "image_folder", every=25)
    for folder in "ab":
        s3_store.upload_folder(tmp_path / folder, f"images/{folder}")
    far = {
        **local,
        "source": f"{s3_store.uri}/images/a",
        "sealed_source": f"{s3_store.uri}/images/b",
    }
    for i, section in enumerate((local, far)):
        preparing.run(section, tmp_path / f"d{i}", tmp_path / f"h{i}")
    first, second = (read_manifest(tmp_path / f"d{i}") for i in range(2))
    assert first.identity == second.identity


def test_equal_images_on_both_sides_and_odd_ones_are_told(tmp_path: Path) -> None:
    pixels, label = (part.copy() for part in DEVELOPMENT)
    # Twenty rows of the sealed side; twelve of them with another label there.
    pixels[:20], label[:20] = SEALED[0][:20], SEALED[1][:20]
    label[:12] = 1
    pixels[30:33] = 7
    pixels[40], label[40] = pixels[900], label[40]
    section = {
        **DATA,
        "format": "npz",
        "source": write_npz(tmp_path / "a.npz", pixels, label),
        "sealed_source": write_npz(tmp_path / "b.npz", *SEALED),
    }
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    told = read_json(tmp_path / "dataset" / "source.json")
    assert told["development_rows_also_sealed_removed"] == 8
    assert told["sealed_images_also_in_development"] == 12
    audit = read_json(tmp_path / "dataset" / "audit.json")
    figures = audit["images"]
    assert figures["constant"] == 3
    assert figures["repeated"] == 5
    assert figures["of_several_classes"] == 2
    assert sum(figures["classes"].values()) == 2100 - 8
    kinds = [warning["kind"] for warning in audit["warnings"]]
    assert kinds == ["image_labels", "constant_images"]


def test_changed_bytes_and_unequal_sizes_are_refused(tmp_path: Path) -> None:
    section = sources(tmp_path, "idx")
    with pytest.raises(IntegrityError, match=r"changed: data\.source_digest is"):
        preparing.run(
            {**section, "source_digest": "sha256:" + "0" * 64},
            tmp_path / "dataset",
            tmp_path / "holdout",
        )
    other = write_npz(tmp_path / "o.npz", np.zeros((9, 5, 5), np.uint8), SEALED[1][:9])
    train = write_npz(tmp_path / "t.npz", *DEVELOPMENT)
    with pytest.raises(DataError, match=r"9 images are of another size .*1 x 5 x 5"):
        preparing.run(
            {**DATA, "format": "npz", "source": train, "sealed_source": other},
            tmp_path / "dataset",
            tmp_path / "holdout",
        )


def test_stored_images_are_bytes_of_one_length(world: Path) -> None:
    dataset = Dataset.load(world / "dataset")
    image = dataset.schema.image
    assert image is not None
    assert image.shape == (1, 6, 6)
    assert dataset.schema.names == ("image",)
    assert str(dataset.splits["train"].features["image"].type) == (
        "fixed_size_binary[36]"
    )


def test_sensitive_columns_entities_and_trusted_labels_stand_beside_images(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    uris = {}
    for name, (pixels, label) in (("a", DEVELOPMENT), ("b", SEALED)):
        n = len(label)
        sex = rng.choice(["f", "m"], n)
        # Half of the recorded labels of one group are wrong, trusted ones are right.
        wrong = (sex == "f") & (rng.random(n) < 0.5)
        recorded = np.where(wrong, (label + 1) % 3, label)
        who = np.array([f"{name}{i // 2}" for i in range(n)])
        checked = np.where(rng.random(n) < 0.5, label.astype("U1"), "")
        uris[name] = write_npz(
            tmp_path / f"{name}.npz",
            pixels,
            recorded,
            sex=sex,
            who=who,
            checked=checked,
        )
    section = {
        **DATA,
        "format": "npz",
        "source": uris["a"],
        "sealed_source": uris["b"],
        "sensitive": ["sex"],
        "entity": "who",
        "trusted_label": "checked",
    }
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    dataset = Dataset.load(tmp_path / "dataset")
    assert dataset.schema.names == ("image",)
    assert dataset.schema.groups["sex"] == ("f", "m")
    assert dataset.splits["train"].entity is not None
    holdout = preparing.sealed(tmp_path / "holdout")
    # One image of each of six hundred who have two.
    assert len(holdout.split) == 600
    audit = read_json(tmp_path / "dataset" / "audit.json")
    status = {kind["kind"]: kind["status"] for kind in audit["bias"]}
    assert status["label_flips"] == "found"
    assert status["proxy_leakage"] == "not identifiable"
    said = next(k for k in audit["bias"] if k["kind"] == "proxy_leakage")
    assert "one pixel tells next to nothing" in str(said)
