"""The schema: everything needed to turn raw rows into model inputs.

It travels with the dataset, the holdout and the model. What it has learnt
(medians, quantile edges, levels) comes from the train split only. Of images nothing is
learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import digest_json, json_form, read_json
from safescale_ammt.reading.date_forms import DateForm
from safescale_ammt.reading.readings import Form, form_of
from safescale_ammt.reading.spelling import KINDS, Kind

SCHEMA_VERSION = 1
ROWS, RECORDS, ENTITIES = "rows", "distinct records", "entities"
"""Sampling units: rows as they are, one of equal rows, one row of an entity."""


@dataclass(frozen=True)
class NumericFeature:
    """A numeric column and what was learnt of it on train.

    Attributes:
        name: column name.
        has_missing: whether train rows lack it: it then has an indicator column.
        median: stands in for a missing value.
        mean: of the train values.
        std: of the train values, 1 if they are constant.
        edges: ascending quantiles for the piecewise-linear encoding.
        spikes: frequent values of a zero-inflated column, ascending.
    """

    name: str
    has_missing: bool
    median: float
    mean: float
    std: float
    edges: tuple[float, ...]
    spikes: tuple[float, ...]
    # In the JSON form it says which class a feature has.
    kind: Literal["numeric"] = "numeric"


@dataclass(frozen=True)
class CategoricalFeature:
    """A categorical column and what was learnt of it on train.

    Attributes:
        name: column name.
        has_missing: whether train rows lack it: missing is then a level.
        levels: the levels with an own indicator column, sorted.
        pooled: whether rarer train levels share the column "(other)"; a level
            never seen joins them, or has all indicators 0 if there is none.
        frequency: log(1 + n) / log(1 + rows) of every train level of a column with
            more than `max_levels` levels, else empty.
        expected_unseen: share of the train rows with a value that say how often a
            new row like them has a value that is not known here (`known`), from 5 %
            on; 0 below.
    """

    name: str
    has_missing: bool
    levels: tuple[str, ...]
    pooled: bool
    frequency: Mapping[str, float]
    expected_unseen: float = 0.0
    kind: Literal["categorical"] = "categorical"

    @property
    def known(self) -> frozenset[str]:
        """The values that are known by name: pooled ones of a wide column are too."""
        return frozenset(self.frequency or self.levels)


@dataclass(frozen=True)
class DateFeature:
    """A column of dates or times and what was learnt of its parts on train.

    Attributes:
        name: column name.
        zoned: whether its values are instants, which are told in UTC.
        parts: `elapsed` (days since 1970-01-01, with a fraction), and as far as they
            vary on train `year`, `month`, `weekday` (Monday is 1) and `hour`.
    """

    name: str
    zoned: bool
    parts: tuple[NumericFeature | CategoricalFeature, ...]
    kind: Literal["date"] = "date"


@dataclass(frozen=True)
class ImageFeature:
    """A column of images; nothing is learnt of it.

    A cell is an image's bytes, channels first and row by row, one for each pixel and
    channel. As model inputs they are bytes / 255, whatever the encoding: a model's
    inputs lie in [0, 1], and a radius of an attack is in this unit.

    Attributes:
        name: column name.
        shape: channels, height and width, in pixels.
    """

    name: str
    shape: tuple[int, int, int]
    kind: Literal["image"] = "image"

    @property
    def size(self) -> int:
        """Bytes of an image, and the model inputs that they become."""
        return math.prod(self.shape)

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> ImageFeature:
        """Parses the JSON form.

        Raises:
            KeyError, TypeError, ValueError: it has another form.
        """
        # KFP makes floats of whole numbers.
        shape = tuple(map(int, entry["shape"]))
        if list(shape) != entry["shape"] or len(shape) != 3 or min(shape) < 1:
            raise KeyError("shape")
        return cls(**{**entry, "shape": shape})


Feature = NumericFeature | CategoricalFeature | DateFeature | ImageFeature


def feature_of(entry: Mapping[str, Any]) -> Feature:
    """Parses the JSON form of a feature.

    Raises:
        KeyError, TypeError, ValueError: it has another form.
    """
    if entry["kind"] == "image":
        return ImageFeature.parse(entry)
    if entry["kind"] == "date":
        parts = tuple(map(learnt_feature, entry["parts"]))
        return DateFeature(**{**entry, "parts": parts})
    return learnt_feature(entry)


def learnt_feature(entry: Mapping[str, Any]) -> NumericFeature | CategoricalFeature:
    """Parses what was learnt of a column, or of a part of a date."""
    if entry["kind"] == "numeric":
        tuples = {key: tuple(entry[key]) for key in ("edges", "spikes")}
        return NumericFeature(**{**entry, **tuples})
    if entry["kind"] == "categorical":
        return CategoricalFeature(**{**entry, "levels": tuple(entry["levels"])})
    raise KeyError(entry["kind"])


@dataclass(frozen=True)
class Schema:
    """A dataset's columns, classes, groups and learnt encodings.

    Attributes:
        features: model inputs, in source column order.
        label: name of the label column.
        classes: class names in code order; binary: code 1 is `positive`.
        positive: the positive class; "" = none (multi-class).
        sensitive: sensitive column names.
        groups: group name -> its values, sorted: the codes of `Split.groups`.
        merges: declared merges, as in the config.
        crosses: declared crosses, as in the config.
        drop: columns that are ignored.
        entity: column that identifies who a row is about; "" = none.
        columns: all raw columns, in source order.
        missing: spellings of a missing value.
        label_map: spellings of classes that are merged.
        comment: sign of comment lines.
        spellings: kind of the values of a categorical feature that is not text.
        readings: form of a numeric or date feature that is not written as programs
            write it, as fields of `NumberForm` or `DateForm`.
        dialect: `delimiter`, `decimal` and `encoding`, and of images `images` and
            `channels`, as far as the config has them.
        ids: columns that say which row it is.
        drop_duplicates: whether equal raw rows are copies, of which one is kept.
    """

    features: tuple[Feature, ...]
    label: str
    classes: tuple[str, ...]
    positive: str
    sensitive: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    merges: Mapping[str, Mapping[str, Any]]
    crosses: Mapping[str, tuple[str, ...]]
    drop: tuple[str, ...]
    entity: str
    columns: tuple[str, ...]
    missing: tuple[str, ...]
    label_map: Mapping[str, str]
    comment: str
    spellings: Mapping[str, Kind] = field(default_factory=dict)
    readings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dialect: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    drop_duplicates: bool = False

    @property
    def unit(self) -> str:
        """What the judged rows are independent draws of."""
        if self.entity:
            return ENTITIES
        return RECORDS if self.drop_duplicates else ROWS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features: the raw columns that a prediction needs."""
        return tuple(feature.name for feature in self.features)

    @property
    def image(self) -> ImageFeature | None:
        """The images, of a dataset that has some: they are its only model inputs."""
        images = (f for f in self.features if isinstance(f, ImageFeature))
        return next(images, None)

    def form(self, name: str) -> Form | None:
        """Returns the form that a feature's texts are read by, if there is one."""
        if name in self.readings:
            return form_of(self.readings[name])
        dates = {f.name: f for f in self.features if isinstance(f, DateFeature)}
        return DateForm(zoned=dates[name].zoned) if name in dates else None

    @property
    def digest(self) -> str:
        """Digest of the canonical form."""
        return digest_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form of `schema.json`."""
        form: dict[str, Any] = {"schema": SCHEMA_VERSION, **json_form(asdict(self))}
        # Left out where they say nothing: the schema of a table of plain text and
        # numbers has the bytes, and the digest, that it always had.
        for key in ("spellings", "readings", "dialect", "ids", "drop_duplicates"):
            if not form[key]:
                del form[key]
        for feature in form["features"]:
            for part in feature.get("parts", [feature]):
                if not part.get("expected_unseen", 1.0):
                    del part["expected_unseen"]
        return form

    @classmethod
    def from_dict(cls, raw: Any) -> Schema:
        """Parses the JSON form.

        Raises:
            InputError: another schema version, or not the form of `schema.json`.
        """
        try:
            version = raw["schema"]
            if version != SCHEMA_VERSION:
                raise InputError(
                    f"The data schema has version {version!r}, this release reads "
                    f"version {SCHEMA_VERSION}."
                )
            values = {key: value for key, value in raw.items() if key != "schema"}
            # JSON knows no tuples: without them a schema would not equal its copy.
            values["features"] = tuple(map(feature_of, raw["features"]))
            for key in ("classes", "sensitive", "drop", "columns", "missing"):
                values[key] = tuple(raw[key])
            values["ids"] = tuple(raw.get("ids", ()))
            for key in ("groups", "crosses"):
                values[key] = {name: tuple(v) for name, v in raw[key].items()}
            for kind in values.get("spellings", {}).values():
                if kind not in KINDS:
                    raise KeyError(kind)
            for reading in values.get("readings", {}).values():
                form_of(reading)
            # An unknown or missing key is a TypeError of the dataclass.
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"This does not have the form of schema.json ({error!r})."
            ) from None

    @classmethod
    def load(cls, path: Path | str) -> Schema:
        """Reads `schema.json`, or the one in an artifact folder.

        Raises:
            InputError: the file is missing or has another form.
        """
        # Dataset, holdout and model call the file the same.
        path = Path(path)
        return cls.from_dict(read_json(path / "schema.json" if path.is_dir() else path))
