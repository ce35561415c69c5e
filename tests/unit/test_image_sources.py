"""Images from IDX, NPZ and folders: one table from all of them, or one sentence."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import idx_bytes, images, write_folder, write_idx, write_npz
from PIL import Image

from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.image_sources import given_images
from safescale_ammt.reading.images import ImageLayout
from safescale_ammt.reading.sources import ALL, content_digest, read_table

PIXELS, LABEL = images(4, seed=0)
IDX = ImageLayout("idx", "label")
NPZ = ImageLayout("npz", "label")
FOLDER = ImageLayout("image_folder", "label")


def table(uri: str, layout: ImageLayout) -> RawTable:
    return read_table(uri, Layout(images=layout))


def pixels_of(found: RawTable) -> np.ndarray:
    cells = found.columns["image"].texts().to_pylist()
    rows = [np.frombuffer(found.contents[cell], np.uint8) for cell in cells]
    return np.stack(rows)


def refused(uri: str, layout: ImageLayout) -> str:
    with pytest.raises(DataError) as caught:
        table(uri, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def forms(folder: Path) -> list[tuple[str, ImageLayout]]:
    """The same images in every form."""
    channels = np.ascontiguousarray(PIXELS[:, None])
    with_table = write_folder(folder / "t", PIXELS, LABEL, "labels.csv")
    return [
        (write_idx(folder / "gz", "train", PIXELS, LABEL), IDX),
        (write_idx(folder / "idx", "a", PIXELS, LABEL, packed=False), IDX),
        (write_npz(folder / "a.npz", PIXELS, LABEL.astype(np.int64)), NPZ),
        (write_npz(folder / "b.npz", PIXELS[..., None], LABEL.astype("U1")), NPZ),
        (write_npz(folder / "c.npz", np.asfortranarray(PIXELS), LABEL[:, None]), NPZ),
        (
            write_npz(folder / "d.npz", channels, LABEL.astype("S1")),
            ImageLayout("npz", "label", channels="first"),
        ),
        (write_folder(folder / "f", PIXELS, LABEL), FOLDER),
        (with_table, ImageLayout("image_folder", "label", labels="labels.csv")),
    ]


def test_every_form_gives_the_same_cells_labels_and_bytes(tmp_path: Path) -> None:
    for uri, layout in forms(tmp_path):
        found = table(uri, layout)
        assert [*found.columns] == ["image", "label"]
        np.testing.assert_array_equal(pixels_of(found), PIXELS.reshape(12, -1))
        assert found.columns["label"].texts().to_pylist() == [str(c) for c in LABEL]
        cells = found.columns["image"].texts()
        assert cells[0].as_py().startswith("image:1x6x6:")


def test_digests_are_those_that_are_asked_for_beforehand(tmp_path: Path) -> None:
    from safescale_ammt.reading.sources import check_digest

    for uri, layout in forms(tmp_path):
        asked = content_digest(uri, images=layout)
        assert check_digest(asked, table(uri, layout), None) == asked
        assert content_digest(uri, uri, ALL, layout) != asked


def test_colours_have_their_channels_first_whatever_held_them(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    (tmp_path / "f" / "x").mkdir(parents=True)
    for i, image in enumerate(colours):
        Image.fromarray(image).save(tmp_path / "f" / "x" / f"{i}.png")
    last = write_npz(tmp_path / "l.npz", colours, LABEL[:2])
    first = write_npz(tmp_path / "f.npz", np.moveaxis(colours, 3, 1), LABEL[:2])
    found = [
        table((tmp_path / "f").as_uri(), FOLDER),
        table(last, NPZ),
        table(first, ImageLayout("npz", "label", channels="first")),
    ]
    for each in found:
        np.testing.assert_array_equal(
            pixels_of(each), np.moveaxis(colours, 3, 1).reshape(2, -1)
        )
        assert each.columns["image"].texts()[0].as_py().startswith("image:3x5x4:")


def test_columns_beside_images_come_from_an_archive_and_a_table(tmp_path: Path) -> None:
    who = np.array([f"p{i}" for i in range(12)])
    uri = write_npz(tmp_path / "a.npz", PIXELS, LABEL, who=who)
    layout = ImageLayout("npz", "label", beside=("who",))
    assert table(uri, layout).columns["who"].texts().to_pylist() == who.tolist()
    folder = tmp_path / "t"
    write_folder(folder, PIXELS[:2], LABEL[:2], "labels.csv")
    (folder / "labels.csv").write_text("who,label,file\na,0,00000.png\nb,0,00001.png\n")
    beside = ImageLayout("image_folder", "label", labels="labels.csv", beside=("who",))
    texts = table(folder.as_uri(), beside).columns["who"].texts().to_pylist()
    assert texts == ["a", "b"]
    assert "has none beside the label" in refused(
        write_folder(tmp_path / "f", PIXELS, LABEL),
        ImageLayout("image_folder", "label", beside=("who",)),
    )


def test_other_names_are_declared(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=LABEL)
    layout = ImageLayout("npz", "label", images="x_train", labels="y_train")
    assert table((tmp_path / "a.npz").as_uri(), layout).rows == 12
    (tmp_path / "p").write_bytes(idx_bytes(PIXELS))
    (tmp_path / "q").write_bytes(idx_bytes(LABEL))
    uri = (tmp_path / "p").as_uri()
    assert table(uri, ImageLayout("idx", "label", labels="q")).rows == 12
    assert "data.labels names the file" in refused(uri, IDX)


IDX_FAULTS: list[tuple[bytes, bytes, str]] = [
    (gzip.compress(idx_bytes(PIXELS))[:-20], idx_bytes(LABEL), "not a whole gzip"),
    (idx_bytes(PIXELS)[:-1], idx_bytes(LABEL), "holds 431 of these 432 bytes"),
    (idx_bytes(PIXELS) + b"x", idx_bytes(LABEL), "goes on after the 12 x 6 x 6"),
    (idx_bytes(PIXELS)[:9], idx_bytes(LABEL), "ends within its head"),
    (b"", idx_bytes(LABEL), "no IDX file of 3 or 4 dimensions"),
    (b"a,b\n1,2\n", idx_bytes(LABEL), "no IDX file of 3 or 4 dimensions"),
    (idx_bytes(LABEL), idx_bytes(LABEL), "no IDX file of 3 or 4 dimensions"),
    (idx_bytes(PIXELS, 0x0D), idx_bytes(LABEL), "of type 0x0d; bytes"),
    (idx_bytes(PIXELS), idx_bytes(PIXELS), "no IDX file of 1 dimensions"),
    (idx_bytes(PIXELS), idx_bytes(LABEL[:-1]), "12 images, and 11 values of 'label'"),
    (idx_bytes(PIXELS[:0]), idx_bytes(LABEL[:0]), "holds no images"),
    # Four thousand million bytes that nobody has written.
    (b"\0\0\x08\x03" + b"\x7f" * 12, idx_bytes(LABEL), "at most 65536 become inputs"),
    (
        b"\0\0\x08\x03" + b"\x7f" * 4 + b"\0\0\0\x10" * 2,
        idx_bytes(LABEL),
        "at most 512 MiB of one source",
    ),
]


@pytest.mark.parametrize(("pixels", "label", "said"), IDX_FAULTS)
def test_a_faulty_idx_file_is_one_sentence(
    pixels: bytes, label: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a-images-idx3-ubyte").write_bytes(pixels)
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(label)
    assert said in refused((tmp_path / "a-images-idx3-ubyte").as_uri(), IDX)


def test_absent_files_are_one_sentence(tmp_path: Path) -> None:
    uri = write_idx(tmp_path, "a", PIXELS, LABEL, packed=False)
    (tmp_path / "a-labels-idx1-ubyte").unlink()
    assert "a-labels-idx1-ubyte (labels, data.labels" in refused(uri, IDX)
    assert "does not exist" in refused((tmp_path / "b.npz").as_uri(), NPZ)
    assert "is no URI" in refused("b.npz", NPZ)
    (tmp_path / "empty").mkdir()
    assert "no folder with images" in refused((tmp_path / "empty").as_uri(), FOLDER)


NPZ_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"labels": LABEL}, "no array 'images' (data.images), expected one of labels"),
    ({"images": PIXELS}, "no array 'labels' (data.labels)"),
    ({"images": PIXELS, "labels": LABEL.astype(object)}, "Python objects"),
    ({"images": PIXELS.astype(object), "labels": LABEL}, "Python objects"),
    ({"images": PIXELS / 255, "labels": LABEL}, "of type float64, expected bytes"),
    ({"images": PIXELS.astype(np.uint16), "labels": LABEL}, "of type uint16"),
    ({"images": PIXELS, "labels": LABEL / 2}, "whole numbers or text"),
    ({"images": PIXELS, "labels": LABEL[:5]}, "12 images, and 5 values"),
    ({"images": PIXELS, "labels": np.eye(12, dtype=int)}, "has 2 dimensions"),
    ({"images": PIXELS[0], "labels": LABEL}, "have 2 dimensions"),
    ({"images": PIXELS, "labels": np.full(12, b"\xff")}, "no text (UTF-8)"),
]


@pytest.mark.parametrize(("arrays", "said"), NPZ_FAULTS)
def test_a_faulty_archive_is_one_sentence(
    arrays: dict[str, Any], said: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert said in refused((tmp_path / "a.npz").as_uri(), NPZ)


def damaged(data: bytes) -> list[bytes]:
    """An archive cut short, of other bytes, and with a head that claims too much."""
    wrong = data.replace(b"(12, 6, 6), }", b"(99, 6, 6), }")
    assert wrong != data
    return [data[: len(data) // 2], b"PK\x03\x04" + bytes(99), b"text", wrong]


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    plain = io.BytesIO()
    np.savez(plain, images=PIXELS, labels=LABEL)
    for data in damaged(plain.getvalue()):
        (tmp_path / "a.npz").write_bytes(data)
        said = refused((tmp_path / "a.npz").as_uri(), NPZ)
        assert "no whole NPZ file" in said or "values that it states" in said


def saved(image: Image.Image, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", **options)
    return data.getvalue()


def claiming(side: int) -> bytes:
    """A small PNG file whose head claims a large image."""
    data = bytearray(saved(GREY))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


GREY = Image.fromarray(PIXELS[0])
PNG_FAULTS: list[tuple[Callable[[], bytes], str]] = [
    (lambda: saved(Image.new("L", (7, 6))), "not of one size: '0/a.png' has 1 x 6 x 6"),
    (lambda: saved(Image.new("RGB", (6, 6))), "'0/b.png' has 3 x 6 x 6"),
    (lambda: saved(Image.new("I;16", (6, 6))), "more than 8 bits"),
    (lambda: saved(Image.new("RGBA", (6, 6))), "has an alpha channel"),
    (lambda: saved(Image.new("LA", (6, 6))), "has an alpha channel"),
    (lambda: saved(Image.new("P", (6, 6))), "has a palette"),
    (lambda: saved(Image.new("1", (6, 6))), "one bit for each pixel"),
    (lambda: saved(GREY, transparency=0), "has a transparent colour"),
    (lambda: saved(GREY)[:-30], "cannot be read as PNG or JPEG"),
    (lambda: b"", "cannot be read as PNG or JPEG"),
    (lambda: b"GIF89a" + bytes(40), "cannot be read as PNG or JPEG"),
    (lambda: saved(Image.new("L", (300, 300))), "at most 65536 become inputs"),
    # Unpacked they would take .9 and 90 GB: refused by their heads.
    (lambda: claiming(30_000), "cannot be read as PNG or JPEG (DecompressionBomb"),
    (lambda: claiming(300_000), "cannot be read as PNG or JPEG (DecompressionBomb"),
]


@pytest.mark.parametrize(("data", "said"), PNG_FAULTS)
def test_a_faulty_image_is_one_sentence(
    data: Callable[[], bytes], said: str, tmp_path: Path
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").write_bytes(saved(GREY))
    (tmp_path / "0" / "b.png").write_bytes(data())
    assert said in refused(tmp_path.as_uri(), FOLDER)


def test_a_jpeg_is_read_and_hidden_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "0" / ".cache").mkdir(parents=True)
    GREY.save(tmp_path / "0" / "a.JPG", "JPEG", quality=95)
    (tmp_path / "0" / "._b.png").write_bytes(b"x")
    (tmp_path / "0" / ".cache" / "c.png").write_bytes(b"x")
    (tmp_path / "0" / "notes.txt").write_bytes(b"x")
    found = table(tmp_path.as_uri(), FOLDER)
    assert found.rows == 1
    near = pixels_of(found).astype(int) - PIXELS[0].reshape(1, -1)
    assert np.abs(near).mean() < 20


LABEL_TABLES = [
    ("name,label\na.png,0\n", "has no column 'file'"),
    ("file,class\na.png,0\n", "has no column 'label'"),
    ("file,label\na.png,0\n", "1 of 2 images are not named"),
    ("file,label\na.png,0\nb.png,1\na.png,1\n", "1 rows name one again"),
    ("file,label\na.png,0\nb.png,1\nc.png,1\n", "and 1 name none"),
    ("", "has no column 'file'"),
]


@pytest.mark.parametrize(("text", "said"), LABEL_TABLES)
def test_a_faulty_table_of_labels_is_one_sentence(
    text: str, said: str, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(saved(GREY))
    (tmp_path / "labels.csv").write_text(text)
    layout = ImageLayout("image_folder", "label", labels="labels.csv")
    assert said in refused(tmp_path.as_uri(), layout)
    (tmp_path / "labels.csv").unlink()
    assert "no table of labels" in refused(tmp_path.as_uri(), layout)
    assert "lie in no folder of a class" in refused(tmp_path.as_uri(), FOLDER)


def test_images_to_predict_are_known_by_their_bytes(tmp_path: Path) -> None:
    layout = ImageLayout("")
    sources: list[str | Path | bytes] = [uri for uri, _ in forms(tmp_path)]
    sources += [tmp_path / "a.npz", tmp_path / "f", (tmp_path / "b.npz").read_bytes()]
    for source in sources:
        if source == (tmp_path / "d.npz").as_uri():
            continue
        found = given_images(source, "the given rows", layout).table()
        np.testing.assert_array_equal(pixels_of(found), PIXELS.reshape(12, -1))
    files = given_images(tmp_path / "f", "", layout).table().columns["file"].texts()
    assert files.to_pylist()[0] == "0/00000.png"
    one = given_images(saved(GREY), "one", layout).table()
    np.testing.assert_array_equal(pixels_of(one), PIXELS[:1].reshape(1, -1))
    with pytest.raises(DataError, match="no IDX file"):
        given_images(b"a,b\n1,2\n", "the given rows", layout)
