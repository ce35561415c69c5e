"""Forest: LightGBM's text, answered to LightGBM's bits, or refused in one sentence."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from safescale_ammt.errors import InputError
from safescale_ammt.model import forest as module
from safescale_ammt.model.forest import Forest, mixture
from safescale_ammt.trees.boosting import BINNED

Floats = NDArray[np.float64]
LEVELS = [1, 3]
"""Columns of `table` that hold codes of levels."""


def table(rows: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Numbers, some missing, and levels, with a label that depends on all of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    x[:, 1] = rng.integers(0, 70, rows)
    x[:, 3] = rng.integers(0, 3, rows)
    x[:, 4] = np.where(rng.random(rows) < 0.9, 0, x[:, 4])
    score = x[:, 0] + np.sin(x[:, 1]) + (x[:, 3] == 2) - x[:, 4]
    x[rng.random(rows) < 0.2, 0] = np.nan
    label = (score + rng.normal(size=rows) > 0).astype(np.int64)
    return x, label


def boosted(rounds: int = 30, seed: int = 0, classes: int = 2, leaves: int = 31) -> str:
    """Returns the text of a booster of `table`."""
    x, label = table(900, seed)
    label += (classes == 3) * (x[:, 2] > 0)
    parameters = {**BINNED, "num_leaves": leaves, "num_threads": 1}
    kind = {2: {"objective": "binary"}, 3: {"objective": "multiclass", "num_class": 3}}
    data = lightgbm.Dataset(x, label, categorical_feature=LEVELS, params=BINNED)
    return lightgbm.train(parameters | kind[classes], data, rounds).model_to_string()


def odd_rows() -> Floats:
    """Rows as training never saw them: lost numbers, levels that nobody knows."""
    x, _ = table(400, seed=9)
    x[::7] = np.nan
    x[::5, 1], x[::11, 1], x[::13, 3] = 500, -3, 2.9
    x[::17, 0], x[::19, 2] = np.inf, -np.inf
    return x


def lightgbms(text: str, x: Floats) -> Floats:
    booster = lightgbm.Booster(model_str=text)
    raw = booster.predict(x, raw_score=True, num_threads=1)
    return np.asarray(raw).reshape(len(x), -1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("leaves", [2, 31, 64])
def test_scores_are_lightgbms_to_the_last_bit(classes: int, leaves: int) -> None:
    text = boosted(classes=classes, leaves=leaves)
    x = odd_rows()
    assert np.array_equal(Forest.read(text).raw(x), lightgbms(text, x))


def test_a_row_has_its_score_whatever_its_neighbours() -> None:
    forest, x = Forest.read(boosted()), odd_rows()
    alone = np.concatenate([forest.raw(row[None]) for row in x[:50]])
    assert np.array_equal(forest.raw(x)[:50], alone)


@pytest.mark.parametrize("shares", [(0.5, 0.25, 0.25), (1 / 3, 1 / 3, 1 / 3)])
def test_a_mixture_is_one_model_that_lightgbm_reads(shares: tuple[float, ...]) -> None:
    texts = [boosted(seed=seed) for seed in range(3)]
    mixed, x = mixture(texts, shares, "binary sigmoid:1"), odd_rows()
    found = Forest.read(mixed).raw(x)
    assert np.array_equal(found, lightgbms(mixed, x))
    parts = [s * Forest.read(t).raw(x) for s, t in zip(shares, texts, strict=True)]
    assert found == pytest.approx(sum(parts), abs=1e-12)
    chance = lightgbm.Booster(model_str=mixed).predict(x, num_threads=1)
    assert chance == pytest.approx(1 / (1 + np.exp(-found[:, 0])), abs=1e-12)


def test_a_share_of_nothing_leaves_its_trees_out() -> None:
    texts = [boosted(rounds=3, seed=seed) for seed in range(2)]
    alone = Forest.read(mixture(texts, (0.0, 1.0), "binary sigmoid:1"))
    assert len(alone.trees) == 3
    x = odd_rows()
    assert np.array_equal(alone.raw(x), Forest.read(texts[1]).raw(x))


def test_a_booster_that_finds_nothing_to_cut_has_one_answer() -> None:
    x, label = np.zeros((60, 2)), np.arange(60) % 2
    data = lightgbm.Dataset(x, label, params=BINNED)
    booster = lightgbm.train({**BINNED, "objective": "binary"}, data, 5)
    forest = Forest.read(booster.model_to_string())
    assert np.array_equal(forest.raw(x), lightgbms(booster.model_to_string(), x))


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


def changed(pattern: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, new, text, count=1)


BROKEN: dict[str, Callable[[str], str]] = {
    "nothing": lambda text: "",
    "another file": lambda text: "weights of something",
    "cut off": lambda text: text[: len(text) // 2],
    "a tree is missing": lambda text: text.replace("Tree=1\n", "Tree=7\n"),
    "another version": replaced("version=v4", "version=v3"),
    "a child that is its parent": changed(r"left_child=-?\d+", "left_child=0"),
    "a child beyond the end": changed(r"left_child=-?\d+", "left_child=999"),
    "a leaf with two parents": changed(r"left_child=-?\d+", "left_child=-2"),
    "an input that is not there": replaced("max_feature_idx=4", "max_feature_idx=0"),
    "a value that is no number": replaced("leaf_value=", "leaf_value=nan "),
    "a value more": replaced("leaf_value=", "leaf_value=0.5 "),
    "a name twice": replaced("num_cat=", "num_leaves=2\nnum_cat="),
    "linear leaves": replaced("is_linear=0", "is_linear=1"),
    "a digit that is a letter": replaced("threshold=", "threshold=x"),
    "a cut at no number": changed(r"threshold=\S+", "threshold=nan"),
    "a kind that is none": changed(r"decision_type=\d+", "decision_type=4"),
    "more sets than there are": changed(r"num_cat=\d+", "num_cat=999999999999"),
    "fewer sets than none": changed(r"num_cat=\d+", "num_cat=-1"),
    "sets that end before they begin": replaced(
        "cat_boundaries=0 ", "cat_boundaries=9 "
    ),
    "a set before the first": changed(r"(threshold=\S+) 0 ", r"\1 -1 "),
    "half a set": changed(r"(threshold=\S+) 0 ", r"\1 0.5 "),
    "a word of too many bits": replaced("cat_threshold=", "cat_threshold=4294967296 "),
    "an input cut as number and as level": changed(
        r"split_feature=(\d+) 3 ", r"split_feature=\1 \1 "
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_forest_is_refused_in_one_sentence(fault: str) -> None:
    text = boosted(rounds=3)
    broken = BROKEN[fault](text)
    assert broken != text
    with pytest.raises(InputError, match=r"is not the text of boosted trees") as caught:
        Forest.read(broken, "trees.txt")
    assert str(caught.value).startswith("trees.txt ")
    assert "\n" not in str(caught.value)


def stump(i: int, level: int) -> str:
    """A tree that sends the levels of the last word up to `level` to the left."""
    words = " ".join(["0"] * (level // 32) + [str(1 << level % 32)])
    return (
        f"Tree={i}\nnum_leaves=2\nnum_cat=1\nsplit_feature=0\nthreshold=0\n"
        "decision_type=1\nleft_child=-1\nright_child=-2\nleaf_value=1 -1\n"
        f"cat_boundaries=0 {level // 32 + 1}\ncat_threshold={words}\n\n\n"
    )


def of_stumps(levels: Sequence[int]) -> str:
    head = "tree\nversion=v4\nnum_tree_per_iteration=1\nlabel_index=0\n"
    trees = "".join(stump(i, level) for i, level in enumerate(levels))
    return f"{head}max_feature_idx=0\n\n{trees}end of trees\n"


def test_a_set_of_many_words_is_read_in_their_order() -> None:
    forest = Forest.read(of_stumps([70_000]))
    assert forest.raw(np.array([[70_000.0], [69_999.0], [0.0]])).tolist() == [
        *([1.0], [-1.0], [-1.0])
    ]


def test_trees_that_take_more_memory_than_is_free_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A short text can ask for much: each tree has a word for each level of another.
    text = of_stumps([3_200_000] + [1] * 99)
    assert Forest.read(of_stumps([3_200_000])).size == pytest.approx(25.6e6, rel=1e-3)
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 30)
    begun = time.process_time()
    with pytest.raises(
        InputError, match=r"in model take 2\.4 GiB of memory .* 1\.0 GiB are free"
    ):
        Forest.read(text, "model")
    assert time.process_time() - begun < 5


def test_a_mixture_says_nothing_of_the_rows_but_cuts_and_leaves() -> None:
    mixed = mixture([boosted(rounds=3)], (1.0,), "binary sigmoid:1")
    assert "count" not in mixed
    assert "weight" not in mixed
    assert "gain" not in mixed
    assert "\nfeature_infos=none none none none none\n" in mixed


def test_more_leaves_than_a_word_has_bits_are_refused() -> None:
    x, label = table(4000)
    parameters = {**BINNED, "objective": "binary", "num_leaves": 90, "num_threads": 1}
    data = lightgbm.Dataset(x, label, params=BINNED)
    text = lightgbm.train(parameters, data, 1).model_to_string()
    with pytest.raises(InputError, match="90 leaves, 1 to 64 are read"):
        Forest.read(text)


def test_rows_of_another_width_are_refused() -> None:
    forest = Forest.read(boosted(rounds=2))
    with pytest.raises(InputError, match="The trees read 5 inputs, the rows have 4"):
        forest.raw(np.zeros((3, 4)))
