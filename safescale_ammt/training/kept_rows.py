"""Rows of a split that were drawn, kept on disk for whoever asks for them again.

A large split, or one whose files lie apart, is gone through once: what `thinning` draws
of it is then the file of a split like another, without a name, so that it goes with
this process whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from weakref import finalize

import numpy as np
import pyarrow as pa

from safescale_ammt.data.dataset import BATCH_ROWS, Split, write_split
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW
from safescale_ammt.files.disk import local_disk, nameless
from safescale_ammt.files.regular import Readable
from safescale_ammt.training.thinning import Thinning

KEPT_ROWS = 1 << 18
"""Rows that are kept, at most: *train* of training has more, and is asked for once."""


def kept_rows(
    parts: Iterable[Split], schema: Schema, beside: Path | None = None
) -> Readable:
    """Writes rows into a file that goes with this process.

    Args:
        parts: the rows, as `in_batches` gives them; their order stays.
        schema: of the rows.
        beside: the file lies on the disk that takes this; None = with temporary files.

    Raises:
        StorageError: this disk fails, or has no room.
    """
    file = nameless(beside)
    kept = Readable("the rows that were drawn", lambda: nullcontext(file))
    # Open as long as somebody may read it, and no longer.
    finalize(kept, file.close)
    with local_disk("keeping the rows that were drawn"):
        write_split(parts, file, schema)
        file.flush()
    return kept


def thinned(
    batches: Iterable[Split], schema: Schema, thinning: Thinning
) -> Iterator[Split]:
    """Yields of each batch the rows that stay; strata are classes and sensitive groups.

    Args:
        batches: of a split, all of them.
        schema: of the rows.
        thinning: of that split, before its first row.
    """
    for batch in batches:
        strata = batch.label
        for name in schema.sensitive:
            strata = strata * len(schema.groups[name]) + batch.groups[name]
        yield batch.take(thinning.kept(strata))


def in_batches(parts: Iterable[Split]) -> Iterator[Split]:
    """Joins parts to such of `BATCH_ROWS` or more, but the last.

    Of ten billion rows a batch has a handful that was drawn: tens of thousands of parts
    would be no small memory, and no fast file.
    """
    held, rows = list[Split](), 0
    for part in parts:
        held.append(compacted(part))
        rows += len(part)
        if rows >= BATCH_ROWS:
            yield joined(held)
            held, rows = [], 0
    if held:
        yield joined(held)


def compacted(part: Split) -> Split:
    """Leaves of coded texts those that a row has: a batch has those of a row group."""
    features = part.features
    for i, field in enumerate(features.schema):
        if pa.types.is_dictionary(field.type):
            whole = features.column(i).combine_chunks()
            used = whole.indices.dictionary_encode()
            texts = whole.dictionary.take(used.dictionary)
            few = pa.DictionaryArray.from_arrays(used.indices, texts)
            features = features.set_column(i, field.name, few)
    return replace(part, features=features)


def joined(parts: list[Split]) -> Split:
    """Returns the rows of parts one after the other, their hashes blank."""
    entity = [part.entity for part in parts if part.entity is not None]
    rows = sum(map(len, parts))
    return Split(
        pa.concat_tables([part.features for part in parts]).combine_chunks(),
        np.concatenate([part.label for part in parts]),
        {
            name: np.concatenate([part.groups[name] for part in parts])
            for name in parts[0].groups
        },
        np.zeros(rows, ROW),
        np.concatenate(entity) if entity else None,
    )
