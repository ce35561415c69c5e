"""Images as a kind of feature: its JSON form, and the inputs that bytes become."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from test_schema import SCHEMA

from safescale_ammt.data.coding import Codes, Coding, encode, width
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.narrowing import narrowed
from safescale_ammt.data.schema import ImageFeature, Schema
from safescale_ammt.errors import DataError, InputError

IMAGE = ImageFeature("image", (3, 2, 4))
IMAGES = dataclasses.replace(SCHEMA, features=(IMAGE,))
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 24)).astype(np.uint8)


def cells(pixels: np.ndarray) -> pa.Array:
    return pa.array([row.tobytes() for row in pixels], pa.binary(pixels.shape[1]))


def test_a_schema_of_images_survives_json_and_floats_of_whole_numbers() -> None:
    raw = IMAGES.to_dict()
    assert raw["features"] == [{"name": "image", "shape": [3, 2, 4], "kind": "image"}]
    for parse in (int, float):
        assert Schema.from_dict(json.loads(json.dumps(raw), parse_int=parse)) == IMAGES
    assert IMAGES.image == IMAGE
    assert SCHEMA.image is None


@pytest.mark.parametrize(
    "shape", [[3, 2], [3, 2, 4, 1], [0, 2, 4], [3, -2, 4], [3, 2.5, 4], "324", None]
)
def test_another_shape_is_no_schema(shape: object) -> None:
    raw = IMAGES.to_dict()
    raw["features"][0]["shape"] = shape
    with pytest.raises(InputError, match=r"form of schema\.json"):
        Schema.from_dict(raw)


@pytest.mark.parametrize("how", ["ple", "standard", "raw"])
def test_inputs_are_bytes_over_255_under_every_encoding(how: Numeric) -> None:
    table = pa.table({"image": cells(PIXELS)})
    found = encode(IMAGES, table, how)
    assert width(IMAGES, how) == found.shape[1] == IMAGE.size == 24
    assert found.dtype == (np.float64 if how == "raw" else np.float32)
    np.testing.assert_array_equal(found, PIXELS.astype(np.float32) / np.float32(255))


def test_codes_are_the_bytes_in_every_batch_and_chunk() -> None:
    coding = Coding(IMAGES, "ple")
    table = pa.concat_tables(
        pa.table({"image": cells(PIXELS[part])}) for part in (slice(3), slice(3, 7))
    )
    parts = [coding.codes(table.slice(0, 5)), coding.codes(table.slice(5))]
    codes = Codes.joined(parts)
    assert codes.code.dtype == np.uint8
    np.testing.assert_array_equal(codes.code, PIXELS)
    assert codes.value.shape == (7, 0)


def test_pairs_of_an_image_are_its_inputs() -> None:
    coding = Coding(IMAGES, "ple")
    codes = coding.codes(pa.table({"image": cells(PIXELS)}))
    column, weight = coding.pairs(codes)
    inputs = np.zeros((7, 24), np.float32)
    np.put_along_axis(inputs, column, weight, 1)
    np.testing.assert_array_equal(inputs, coding.inputs(codes))


def test_an_image_stands_beside_other_features() -> None:
    schema = dataclasses.replace(SCHEMA, features=(*SCHEMA.features, IMAGE))
    beside = {"age": [30.0, None], "city": ["oslo", "bonn"]}
    table = pa.table({**beside, "image": cells(PIXELS[:2])})
    alone = encode(SCHEMA, pa.table(beside))
    images = PIXELS[:2].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(encode(schema, table), np.hstack([alone, images]))


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (cells(PIXELS[:, :23]), r"of type fixed_size_binary\[23\]"),
        (pa.array([bytes(24)]), "of type binary"),
        (pa.array(["x" * 24]), "of type string"),
        (pa.array([bytes(24), None], pa.binary(24)), "1 without a value"),
    ],
)
def test_other_cells_are_one_sentence(column: pa.Array, found: str) -> None:
    with pytest.raises(DataError, match=rf"3 x 2 x 4 .*24 bytes each.*{found}"):
        encode(IMAGES, pa.table({"image": column}))


def test_images_are_never_narrowed() -> None:
    def counted(schema: Schema) -> list[np.ndarray]:
        raise AssertionError("an image has no narrower form")

    assert narrowed(IMAGES, counted, most=5) is IMAGES
