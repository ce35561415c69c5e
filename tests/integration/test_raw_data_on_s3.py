"""Raw data on a real object store give the artifacts that files give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from preparing import run
from small_tables import config, loans, save, spell

from safescale_ammt.errors import DataError, StoreInputError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.reading.sources import content_digest
from safescale_ammt.store.base import Store
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.uri import open_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with EmbeddedStore(tmp_path / "state") as embedded:
        for name, value in embedded.environ.items():
            monkeypatch.setenv(name, value)
        yield open_store(embedded.uri)


def test_a_bucket_gives_the_same_artifacts_as_a_folder(
    store: Store, tmp_path: Path
) -> None:
    data = spell(loans())
    store.put("raw/loans.csv", data)
    sources = [f"{store.uri}/raw/loans.csv", save(tmp_path / "loans.csv", data)]
    assert content_digest(sources[0]) == content_digest(sources[1])
    for i, source in enumerate(sources):
        run(config(source=source), tmp_path / f"d{i}", tmp_path / f"h{i}")
    for kind in "dh":
        first, second = (read_manifest(tmp_path / f"{kind}{i}") for i in range(2))
        assert first.identity == second.identity
    run(config(source=f"{store.uri}/raw"), tmp_path / "folder", tmp_path / "h")
    assert len(read_manifest(tmp_path / "folder").files) > 5


def test_what_is_not_there_is_one_sentence(store: Store, tmp_path: Path) -> None:
    def refused(source: str, error: type[Exception]) -> str:
        with pytest.raises(error) as caught:
            run(config(source=source), tmp_path / "dataset", tmp_path / "holdout")
        assert not (tmp_path / "dataset").exists()
        return str(caught.value)

    absent = refused(f"{store.uri}/none.csv", DataError)
    assert "none.csv does not exist" in absent
    assert "nowhere" in refused("s3://nowhere/loans.csv", StoreInputError)
