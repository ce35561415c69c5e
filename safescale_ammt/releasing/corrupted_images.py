"""Corrupted images: what a model answers once judged images met a corruption."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.files.parquet import fixed_bytes
from safescale_ammt.judging.corrupting import corrupted, drawn_corruptions
from safescale_ammt.model.predictor import Predictor


def corrupted_answers(
    corruptions: Corruptions,
    predictor: Predictor,
    stored: StoredRows,
    holdout: str,
) -> NDArray[np.int64]:
    """Returns what became of each image, codes (n,) into `words_of(corruptions)`.

    Args:
        corruptions: of which each image meets one.
        predictor: the model.
        stored: the rows, images among their columns.
        holdout: identity digest of the holdout: corruptions are drawn by it.
    """
    image = stored.schema.image
    assert image is not None
    # By the rows' own hashes, which the model does not see.
    numbers, lots = drawn_corruptions(corruptions, holdout, stored.hashes())
    print(f"Under {corruptions.name}: {len(numbers):,} rows.", flush=True)
    right, at = [np.zeros(0, dtype=bool)], 0
    for batch in stored.batches():
        own = slice(at, at := at + len(batch))
        place = batch.features.column_names.index(image.name)
        kind = np.dtype((np.void, image.size))
        taken = fixed_bytes(batch.features[image.name], kind)
        pixels = taken.view(np.uint8).reshape(len(batch), *image.shape)
        changed = corrupted(pixels, numbers[own], lots[own], corruptions)
        # A column of bytes again: nets, trees and programs are asked as ever.
        data = pa.py_buffer(changed.tobytes())
        cells = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(image.size), len(batch), [None, data]
        )
        met = batch.features.set_column(place, image.name, cells)
        answers = predictor.predict_table(met)
        # An answer that is no number is right for no label.
        known = np.isfinite(answers.score)
        right.append(known & (answers.prediction == np.asarray(batch.label)))
    wrong: NDArray[np.int64] = 1 - np.concatenate(right).astype(np.int64)
    return 2 * numbers + wrong
