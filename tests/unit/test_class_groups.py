"""Groups that are made of the label: each class is one, and what is told of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from image_files import images, write_npz
from small_tables import config, loans, save, spell

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.counts import Counts, LabelCounts, SplitCounts, Withheld
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.disclosure import with_class_groups
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.canonical import read_json

MERGE = {"column": "label", "values": {}}


def prepared(folder: Path, each: int, **changes: Any) -> Path:
    """Prepares images whose sealed side has so many rows of each class."""
    section = {
        "format": "npz",
        "label": "label",
        "source": write_npz(folder / "a.npz", *images(60, seed=1)),
        "sealed_source": write_npz(folder / "b.npz", *images(each, seed=2)),
        "merges": {"kind": MERGE},
        **changes,
    }
    preparing.run(section, folder / "dataset", folder / "holdout")
    return folder / "dataset"


def test_each_class_is_a_group_and_its_sealed_rows_are_told(tmp_path: Path) -> None:
    folder = prepared(tmp_path, 40)
    dataset = Dataset.load(folder)
    assert dataset.schema.groups == {"kind": ("0", "1", "2")}
    split = dataset.splits["train"]
    np.testing.assert_array_equal(split.groups["kind"], split.label)
    told = Counts.load(folder).split("sealed").groups["kind"]
    assert told["1"] == LabelCounts(40, (0, 40, 0))
    # Of such a group the rates of classes are 0 and 1, and no cell is small.
    audit = read_json(folder / "audit.json")
    assert audit["base_rates"] == []
    assert audit["warnings"] == []


def test_classes_may_be_merged_and_merges_of_them_too(tmp_path: Path) -> None:
    merges = {
        "kind": {"column": "label", "values": {"0": "low"}, "other": "rest"},
        "again": {"column": "kind", "values": {"low": "a"}},
    }
    dataset = Dataset.load(prepared(tmp_path, 40, merges=merges))
    assert dataset.schema.groups == {"again": ("a", "rest"), "kind": ("low", "rest")}
    told = dataset.counts.split("sealed").groups
    assert told["kind"]["rest"] == LabelCounts(80, (0, 40, 40))
    assert told["again"]["a"] == LabelCounts(40, (40, 0, 0))


def test_a_small_class_hides_all_counts_of_classes(tmp_path: Path) -> None:
    counts = Counts.load(prepared(tmp_path, 9)).split("sealed")
    hidden = LabelCounts(Withheld.HIDDEN, (Withheld.HIDDEN,) * 3)
    assert set(counts.groups["kind"].values()) == {hidden}
    assert counts.rows == 27


def test_classes_are_not_told_beside_withheld_counts() -> None:
    of_label = SplitCounts(90, {"kind": {"a": LabelCounts(90, (50, 40))}})
    small = LabelCounts(Withheld.SMALL, (Withheld.SMALL, Withheld.SMALL))
    told = with_class_groups(SplitCounts(90, {"sex": {"f": small}}), of_label)
    assert told.groups["kind"]["a"].rows == Withheld.HIDDEN
    plain = SplitCounts(90, {"sex": {"f": LabelCounts(90, (50, 40))}})
    both = with_class_groups(plain, of_label)
    assert both.groups == {**of_label.groups, **plain.groups}


def test_a_table_has_groups_of_its_label_too(tmp_path: Path) -> None:
    section = config(
        source=save(tmp_path / "a.csv", spell(loans())),
        merges={"kind": {"column": config()["label"], "values": {}}},
    )
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    dataset = Dataset.load(tmp_path / "dataset")
    assert set(dataset.schema.groups["kind"]) == set(dataset.schema.classes)


def test_a_cross_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names 'kind', a merge of the label"):
        prepared(tmp_path, 40, crosses={"both": ["kind", "kind"]})


IMAGES = {"format": "npz", "label": "label", "source": "s3://b/a.npz", "splits": {}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"delimiter": ";"}, "data.delimiter is given"),
    ({"engine": "spark"}, "data.engine is given"),
    ({"columns": ["a"]}, "data.columns is given"),
    ({"numbers": {"a": "."}}, "data.numbers is given"),
    ({"window": "7d"}, "data.window is given"),
    ({"sensitive_in_model": True}, "data.sensitive_in_model is given"),
    ({"format": "idx", "images": "x"}, "data.images is given"),
    ({"format": "csv", "images": "x"}, "data.images is given"),
    ({"format": "csv", "labels": "x"}, "data.labels is given"),
    ({"format": "parquet", "channels": "first"}, "data.channels is given"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_keys_that_nothing_reads_are_refused(
    changes: dict[str, Any], said: str
) -> None:
    splits = {"splits": {**DataConfig().splits, "train": 0.4, "sealed": 0.2}}
    with pytest.raises(ConfigError, match=said):
        DataConfig.from_params({**IMAGES, **splits, **changes})
    DataConfig.from_params({**IMAGES, **splits})


def test_keys_of_images_leave_digests_of_tables_as_they_were() -> None:
    plain = DataConfig()
    assert dataclasses.replace(plain, images="", labels="").digest == plain.digest
    with_images = dataclasses.replace(plain, format="npz", images="x")
    assert with_images.digest != dataclasses.replace(plain, format="npz").digest
