"""Four kinds of bias: found where they are, quiet where not, unknown without a word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safety_world import (
    constitution,
    evidence,
    submission,
    write_model,
    write_verdict,
)
from scipy.stats import binom, hypergeom
from test_audit import random_case, schema_of, splits_of

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data import group_excess
from safescale_ammt.data.associations import cramers_v, proxies, step_down
from safescale_ammt.data.audit import audit
from safescale_ammt.data.audit_warnings import warnings_form
from safescale_ammt.data.bias_findings import (
    BIAS_LEVEL,
    BiasFinding,
    Examined,
    Told,
    examined_form,
    read_examined,
)
from safescale_ammt.data.bias_tests import OTHERS, label_flips, under_sampling
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.group_excess import excess_p_values, excess_rates, tables_of
from safescale_ammt.data.references import NO_REFERENCES, References
from safescale_ammt.errors import ConfigError, DataError, InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.releasing.page import page_of
from safescale_ammt.reporting.data_warnings import EXAMINED, examined_section
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

SCHEMA = schema_of(["x"], ["c"])
TRUST = References(trusted_label="trusted")


def rows_of(n: int, seed: int, **changes: Any) -> Split:
    columns, label, groups = random_case(n, seed)
    splits = splits_of(SCHEMA, columns, label, groups)
    whole = Split(
        pa.concat_tables([s.features for s in splits.values()]),
        np.concatenate([s.label for s in splits.values()]),
        {g: np.concatenate([s.groups[g] for s in splits.values()]) for g in groups},
        np.concatenate([s.rows for s in splits.values()]),
    )
    return dataclasses.replace(whole, **changes)


def flipped(n: int, seed: int, rate: np.ndarray, base: float = 0.0) -> Examined:
    """Flips labels at a rate by sex and at `base` everywhere; a third is checked."""
    rng = np.random.default_rng(seed)
    rows = rows_of(n, seed)
    true = rows.label
    # A legitimate gap: one sex has far more successes.
    true = (rng.random(n) < np.array([0.2, 0.6])[rows.groups["sex"]]).astype(np.int64)
    off = rng.random(n) < rate[rows.groups["sex"]] + base * true
    texts = np.array(SCHEMA.classes, object)[true]
    column = pa.array(texts, pa.string(), mask=rng.random(n) > 1 / 3)
    flipped_rows = dataclasses.replace(rows, label=(true ^ off).astype(np.int64))
    table = pa.table({"trusted": column})
    return label_flips(SCHEMA, flipped_rows, TRUST, table, seed)


def test_flips_of_one_group_are_found_named_and_measured() -> None:
    found = flipped(6000, 0, np.array([0.15, 0.0]), base=0.03)
    assert found.status == "found"
    (first, *rest) = found.found
    assert (first.group, first.value, rest) == ("sex", "f", [])
    assert first.lower < 0.15 < first.upper
    assert "'f' ('sex')" in found.told().sentence
    (warning,) = found.warnings()
    assert (warning.kind, warning.group) == ("label_flips", "sex")


def test_a_base_rate_gap_with_errors_of_one_class_is_no_flip() -> None:
    # Successes are mislabelled at 20 %, of everybody: one sex has thrice as many.
    found = [flipped(1500, seed, np.zeros(2), base=0.2).status for seed in range(60)]
    assert found.count("found") <= 3
    raw = flipped(6000, 1, np.zeros(2), base=0.2)
    assert raw.status == "not found"
    assert "no proof of absence" in raw.told().sentence


def test_flips_that_cancel_out_in_a_group_are_seen_by_class() -> None:
    n, rng = 6000, np.random.default_rng(99)
    rows = rows_of(n, 0)
    true, f = rng.integers(0, 2, n), rows.groups["sex"] == 0
    # As many errors in both sexes: of successes in one, of failures in the other.
    off = (rng.random(n) < 0.2) & (true == f)
    table = pa.table({"trusted": pa.array(np.array(SCHEMA.classes)[true])})
    some = dataclasses.replace(rows, label=(true ^ off).astype(np.int64))
    assert label_flips(SCHEMA, some, TRUST, table, 0).status == "found"


def test_without_a_reference_nothing_is_clean_and_the_reference_is_named() -> None:
    splits = splits_of(SCHEMA, *random_case(400, 0))
    found = {kind.kind: kind for kind in audit(SCHEMA, splits, 0).examined}
    keys = {
        "label_flips": "data.trusted_label",
        "under_sampling": "data.population",
        "measurement_noise": "data.repeats",
    }
    for kind, key in keys.items():
        assert found[kind].status == "not identifiable"
        assert key in found[kind].told().sentence
        assert not found[kind].warnings()
    assert found["proxy_leakage"].status == "not found"


def test_groups_of_few_checked_rows_are_not_named() -> None:
    rows = rows_of(40, 0)
    texts = np.array(SCHEMA.classes, object)[rows.label]
    column = pa.array(texts, pa.string(), mask=np.arange(40) > 12)
    found = label_flips(SCHEMA, rows, TRUST, pa.table({"trusted": column}), 0)
    assert found.status == "not identifiable"
    assert "10" in found.told().sentence


def test_values_of_few_checked_rows_are_compared_together() -> None:
    schema = dataclasses.replace(
        SCHEMA, sensitive=("sex",), groups={"sex": ("a", "b", "m")}
    )
    code = np.repeat([0, 1, 2], [7, 6, 200])
    true = np.arange(213) % 2
    label = np.where(code < 2, 1 - true, true)
    rows = dataclasses.replace(rows_of(213, 0), label=label, groups={"sex": code})
    texts = pa.array(np.array(schema.classes, object)[true], pa.string())
    found = label_flips(schema, rows, TRUST, pa.table({"trusted": texts}), 0)
    assert found.status == "found"
    assert [(f.value, f.rows) for f in found.findings] == [("m", 200), (OTHERS, 13)]
    assert "'a'" not in found.told().sentence
    # Nine of both together are too few: nobody is left to compare the others with.
    few = np.concatenate([np.arange(9), np.arange(13, 213)])
    rows = rows.take(few)
    table = pa.table({"trusted": texts.take(pa.array(few))})
    assert label_flips(schema, rows, TRUST, table, 0).status == "not identifiable"


def test_a_trusted_label_that_is_no_class_is_one_sentence_without_a_value() -> None:
    rows = rows_of(40, 0)
    table = pa.table({"trusted": ["Mrs. Jones", *[SCHEMA.classes[0]] * 39]})
    with pytest.raises(DataError, match="1 development rows have a trusted") as error:
        label_flips(SCHEMA, rows, TRUST, table, 0)
    assert "Jones" not in str(error.value)


def counted(f: int, m: int) -> dict[str, np.ndarray]:
    return {"sex": np.array([[f, 0], [m, 0]])}


def test_under_sampling_has_the_exact_p_value_and_the_share_that_is_missing() -> None:
    shares = References(population={"sex": {"f": 0.5, "m": 0.5}})
    found = under_sampling(SCHEMA, counted(300, 400), shares)
    f, m = found.findings
    # Two tests: Bonferroni's factor.
    assert f.p_value == pytest.approx(2 * binom.cdf(300, 700, 0.5))
    assert f.strength == pytest.approx(1 - 300 / 400)
    assert f.lower < 0.25 < f.upper
    assert (f.found, m.found) == (True, False)
    assert under_sampling(SCHEMA, counted(350, 350), shares).status == "not found"


def test_the_level_of_under_sampling_goes_by_groups_and_then_by_what_varies() -> None:
    values = {"sex": ("f", "m"), "race": ("a", "b", "c")}
    schema = dataclasses.replace(SCHEMA, groups=values)
    shares = {"sex": {"f": 0.5, "m": 0.5}, "race": {"a": 0.02, "b": 0.18, "c": 0.8}}
    tables = {
        "sex": np.array([[500, 0], [500, 0]]),
        "race": np.array([[8, 0], [150, 0], [842, 0]]),
    }
    findings = under_sampling(schema, tables, References(population=shares)).findings
    spent = {}
    for f in findings:
        share = shares[f.group][f.value]
        spent[f.group, f.value] = binom.cdf(f.rows, 1000, share) / f.p_value
    b, a = spent["race", "b"], spent["race", "a"]
    assert b / a == pytest.approx((0.18 * 0.82 / (0.02 * 0.98)) ** 0.5)
    # A group more halves the level, three values and not two do no more to it.
    alone = under_sampling(
        schema, tables, References(population={"race": shares["race"]})
    )
    assert alone.findings[1].p_value == pytest.approx(findings[3].p_value / 2)


def test_a_declared_value_without_a_row_is_missing_and_an_undeclared_one_refused() -> (
    None
):
    shares = References(population={"sex": {"f": 0.3, "m": 0.4, "d": 0.3}})
    gone = under_sampling(SCHEMA, counted(300, 400), shares).findings[2]
    assert (gone.value, gone.strength, gone.found) == ("d", 1.0, True)
    few = References(population={"sex": {"F": 0.5, "m": 0.5}})
    with pytest.raises(DataError, match=r"no share to 1 of the values.*'f'"):
        under_sampling(SCHEMA, counted(300, 400), few)
    # A value that few rows share is not shown.
    with pytest.raises(DataError) as error:
        under_sampling(SCHEMA, counted(3, 400), few)
    assert "'f'" not in str(error.value)


def repeated(noise: tuple[float, float], kind: str, seed: int) -> Examined:
    """Measures x or c again in all rows, with a noise by sex."""
    rng, n = np.random.default_rng(seed), 3000
    columns, label, groups = random_case(n, seed)
    if kind == "x":
        # Noise that grows with what is measured, which is more in one sex.
        columns["x"] = np.exp(0.5 * columns["x"] + 0.3 * groups["sex"])
        scale = np.array(noise)[groups["sex"]] * columns["x"]
        again = pa.array(columns["x"] + scale * rng.normal(size=n))
    else:
        off = rng.random(n) < np.array(noise)[groups["sex"]]
        again = pa.array(np.where(off, rng.choice(["p", "q"], n), columns["c"]))
    splits = splits_of(SCHEMA, columns, label, groups)
    beside = {
        name: again.take(pa.array(np.flatnonzero(np.arange(n) * 5 // n == i)))
        for i, name in enumerate(splits)
    }
    wider = {
        name: dataclasses.replace(
            split, features=split.features.append_column("again", beside[name])
        )
        for name, split in splits.items()
    }
    references = References(repeats={kind: "again"})
    found = audit(SCHEMA, wider, seed, references=references)
    return next(k for k in found.examined if k.kind == "measurement_noise")


@pytest.mark.parametrize(("kind", "quiet", "loud"), [("x", 0.1, 0.3), ("c", 0.05, 0.2)])
def test_noise_of_one_group_is_found_and_everybodys_is_not(
    kind: str, quiet: float, loud: float
) -> None:
    found = repeated((loud, quiet), kind, 0)
    assert {(f.column, f.value) for f in found.found} == {(kind, "f")}
    even = [repeated((quiet, quiet), kind, seed).status for seed in range(12)]
    assert even.count("found") <= 1


def test_rows_of_one_person_are_one_to_every_test() -> None:
    n = 60
    columns, label, groups = random_case(n, 3)
    copies = np.repeat(np.arange(n), 40)
    schema = dataclasses.replace(SCHEMA, entity="who")
    columns = {name: values[copies] for name, values in columns.items()}
    groups = {name: codes[copies] for name, codes in groups.items()}
    splits = splits_of(schema, columns, label[copies], groups)
    apart = audit(schema, splits, 0).examined[2]
    known = {
        name: dataclasses.replace(
            s, entity=np.unique(s.features["x"], return_inverse=True)[1]
        )
        for name, s in splits.items()
    }
    shares = References(population={"sex": {"f": 0.6, "m": 0.4}})
    told = audit(schema, known, 0, references=shares)
    proxy, under = told.examined[2], told.examined[1]
    assert proxy.status == "not found"
    assert sum(f.rows for f in under.findings) == n
    # Where nobody knows who a row is about, that is said.
    assert apart.status == "not identifiable"
    assert "data.entity" in apart.told().sentence


def test_one_stratum_and_one_view_is_a_test_like_fishers() -> None:
    table = np.array([[20, 9], [60, 11]])
    marked = np.array([0.0, 1.0])
    p = excess_p_values([table], [[marked]], 40_000, 0)
    # Above its mean only the first value is; the greatest deviance has two tails.
    law, at = hypergeom(100, 20, 29), np.arange(21)
    tail = law.sf(8)
    assert tail < p[0] < tail * 2.2
    assert p[1] == 1
    assert law.pmf(at).sum() == pytest.approx(1)


def test_p_values_of_the_null_are_uniform_or_above() -> None:
    least = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        group = np.minimum(rng.integers(0, 12, 400), 3)
        strata = rng.integers(0, 2, 400)
        marks = (rng.random(400) < np.array([0.02, 0.2])[strata]).astype(np.int64)
        tables, one = tables_of(strata, group, marks), np.array([0.0, 1.0])
        views = [[one, None], [None, one], [one, one]]
        least.append(excess_p_values(tables, views, 300, seed).min())
    # Binomial(200, .1): over 31 has a chance of .2 %.
    assert (np.array(least) <= 0.1).sum() <= 31


def test_excess_rates_compare_like_with_like() -> None:
    # Both values err at 10 % and 40 % by stratum, in other proportions.
    tables = [np.array([[90, 10], [900, 100]]), np.array([[600, 400], [60, 40]])]
    for gap, low, high in excess_rates(tables, 0.025):
        assert gap == pytest.approx(0)
        assert low < 0 < high


def test_tables_that_are_drawn_in_parts_have_the_same_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, one = np.array([[20, 9], [60, 11]]), np.array([0.0, 1.0])
    whole = excess_p_values([table], [[one]], 20_000, 0)
    monkeypatch.setattr(group_excess, "MOST_CELLS", 1000)
    parts = excess_p_values([table], [[one]], 20_000, 1)
    assert parts == pytest.approx(whole, abs=0.01)


def test_no_error_at_all_is_no_finding() -> None:
    tables = tables_of(np.zeros(40, int), np.arange(40) % 2, np.zeros(40, int))
    one = np.array([0.0, 1.0])
    assert excess_p_values(tables, [[one]], 50, 0).tolist() == [1, 1]


def test_step_down_leaves_no_rival_that_was_found_before() -> None:
    rng = np.random.default_rng(0)
    # The first test's null is wide: it would hide the second one by single steps.
    draws = np.column_stack([10 * rng.random(1000), rng.random(1000)])
    draws[0] = 50, 0.999
    assert step_down(draws).tolist() == [0.001, pytest.approx(0.002, abs=0.003)]
    assert step_down(draws[:, ::-1]).tolist() == step_down(draws)[::-1].tolist()


def test_a_trend_over_many_bins_is_seen_by_its_order() -> None:
    rng = np.random.default_rng(1)
    target, seen = rng.integers(0, 2, 800), [0, 0]
    for seed in range(10):
        shift = np.random.default_rng(seed).normal(size=800) + 0.28 * target
        bins = np.searchsorted(np.sort(shift)[40::40], shift)
        for i, ordered in enumerate(((), (0,))):
            (found,) = proxies([bins], [target], 99, seed, ordered)
            seen[i] += found.p_value <= 0.01
    assert seen[1] > seen[0]


def test_the_interval_of_cramers_v_covers_it() -> None:
    law = np.array([[0.32, 0.13], [0.1, 0.2], [0.08, 0.17]])
    product = np.outer(law.sum(axis=1), law.sum(axis=0))
    true = float(((law - product) ** 2 / product).sum()) ** 0.5
    rng, covers = np.random.default_rng(0), 0
    for _ in range(300):
        cells = np.repeat(np.arange(6), rng.multinomial(1000, law.ravel()))
        found = cramers_v(cells // 2, cells % 2)
        covers += found.lower <= true <= found.upper
    assert 275 <= covers <= 296


def test_what_is_told_is_read_again_and_stands_on_the_page(tmp_path: Path) -> None:
    finding = BiasFinding("sex", "<b>", "", 0.2, 0.1, 0.3, BIAS_LEVEL, 99)
    told = Examined("under_sampling", "missing rows", (finding,)).told()
    assert (told.status, "20 %" in told.sentence) == ("found", True)
    write_json(tmp_path / "w.json", {"examined": examined_form([told])})
    assert read_examined(tmp_path / "w.json") == (told,)
    assert read_examined(tmp_path / "none.json") == ()
    write_json(tmp_path / "old.json", {"warnings": []})
    assert read_examined(tmp_path / "old.json") == ()
    page = examined_section([told])
    assert "Under-sampling: found." in page
    assert "<b>" not in page
    assert examined_section([]) == ""


def test_no_value_of_a_group_that_has_many_is_named() -> None:
    for many, shown in ((10, True), (11, False)):
        findings = tuple(
            BiasFinding("town", f"t{i}", "", 0.2, 0.1, 0.3, 0.5 if i else 0.001, 50)
            for i in range(many)
        )
        told = Examined("label_flips", "flips", findings).told()
        assert ("'t0'" in told.sentence) is shown
        assert "'town'" in told.sentence


@pytest.mark.parametrize(
    "form",
    [
        {"examined": 3},
        {"examined": ["x"]},
        {"examined": [{"kind": "other", "status": "found", "sentence": ""}]},
        {"examined": [{"kind": "label_flips", "status": "clean", "sentence": ""}]},
        [],
    ],
)
def test_another_form_is_refused(form: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "warnings.json", form)
    with pytest.raises(InputError, match="prepare the data again"):
        read_examined(tmp_path / "warnings.json")


ROLES = {"label": "y", "sensitive": ["sex"], "source": "file:///t.csv"}


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"trusted_label": "y"}, "one role"),
        ({"trusted_label": "sex"}, "one role"),
        ({"trusted_label": "who", "entity": "who"}, "data.entity"),
        ({"repeats": {"x": "y"}}, "one role"),
        ({"repeats": {"x": "x"}}, "twice"),
        ({"repeats": {"x": "again", "z": "again"}}, "twice"),
        ({"repeats": {"x": "again"}, "trusted_label": "again"}, "one role"),
        ({"population": {"tribe": {"a": 1.0}}}, "'tribe'"),
        ({"population": {"sex": {"f": 1.0}}}, "two values"),
        ({"population": {"sex": {"f": 0.5, "m": 0.4}}}, "sum to 0.9"),
        ({"population": {"sex": {"f": 1.5, "m": -0.5}}}, "share > 0"),
        ({"population": {"sex": {}}}, "two values"),
        ({"population": {"sex": {"f": "half", "m": 0.5}}}, "number"),
    ],
)
def test_references_that_make_no_sense_are_refused(keys: Any, word: str) -> None:
    splits = {**DataConfig().splits, "train": 0.5, "sealed": 0.1}
    with pytest.raises(ConfigError, match=word):
        DataConfig.from_params({**ROLES, "splits": splits, **keys})


def test_configs_without_references_keep_their_digest() -> None:
    plain = DataConfig()
    assert plain.digest == dataclasses.replace(plain, repeats={}).digest
    other = dataclasses.replace(plain, repeats={"x": "x2"})
    assert other.digest != plain.digest


def table(n: int = 4000) -> str:
    """Loans with flips and a noisier income of women, each checked in some rows."""
    rng = np.random.default_rng(0)
    f, x = rng.random(n) < 0.3, rng.normal(size=n)
    true = (x + rng.normal(size=n) > 0).astype(int)
    y = np.where(f & (rng.random(n) < 0.25), 1 - true, true)
    again = x + np.where(f, 0.5, 0.05) * rng.normal(size=n)
    some = rng.random(n) < 0.3
    lines = ["sex,income,y,checked,income_2,constant"]
    for i in range(n):
        beside = f"{true[i]}.0,{again[i]:.4f}" if some[i] else ","
        lines.append(f"{'f' if f[i] else 'm'},{x[i]:.4f},{y[i]},{beside},1")
    return "\n".join([*lines, ""])


def prepared(folder: Path, **keys: Any) -> Path:
    (folder / "t.csv").write_text(table(), "utf-8")
    splits = {"train": 0.5, "validation": 0.1, "constraint": 0.1, "monitor": 0.1}
    data = {
        "source": (folder / "t.csv").as_uri(),
        "label": "y",
        "positive": "1",
        "sensitive": ["sex"],
        "splits": {**splits, "select": 0.1, "sealed": 0.1},
        **keys,
    }
    store = {STORE: (folder / "store").as_uri()}
    prepare_data.run(data, folder / "d", folder / "h", environ=store)
    return folder / "d"


KEYS = {
    "trusted_label": "checked",
    "repeats": {"income": "income_2"},
    "population": {"sex": {"f": 0.5, "m": 0.5}},
}


def test_a_whole_table_with_references_says_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepared(tmp_path, **KEYS)
    bias = {b["kind"]: b for b in read_json(dataset / "audit.json")["bias"]}
    for kind in ("label_flips", "under_sampling", "measurement_noise"):
        assert bias[kind]["status"] == "found", bias[kind]
        (f,) = [x for x in bias[kind]["findings"] if x["value"] == "f"]
        assert f["found"]
    lost = next(x for x in bias["under_sampling"]["findings"] if x["value"] == "f")
    assert lost["strength"] == pytest.approx(1 - 3 / 7, abs=0.06)
    schema = read_json(dataset / "schema.json")
    assert [f["name"] for f in schema["features"]] == ["income"]
    assert schema["drop"] == ["checked", "income_2"]
    assert "Label flips: found" in capsys.readouterr().out
    assert read_examined(dataset / "audit.json", "bias")[0].status == "found"


def test_a_repeat_of_no_input_and_an_unknown_column_are_one_sentence(
    tmp_path: Path,
) -> None:
    left_out = {"trusted_label": "checked", "drop": ["income_2"]}
    with pytest.raises(DataError, match=r"'wage' \(data\.repeats\)"):
        prepared(tmp_path, repeats={"income": "wage"}, drop=["checked", "income_2"])
    with pytest.raises(DataError, match=r"'constant', which is no input"):
        prepared(tmp_path, repeats={"constant": "income_2"}, drop=["checked"])
    with pytest.raises(DataError, match=r"data\.trusted_label"):
        prepared(tmp_path, **{**left_out, "trusted_label": "cheked"}, repeats={})
    assert not (tmp_path / "d").exists()


def test_the_page_of_a_verdict_says_what_its_data_were_examined_for(
    tmp_path: Path,
) -> None:
    rule = constitution()
    model = write_model(tmp_path / "model", rule)
    write_verdict(tmp_path / "v", rule, evidence(), submission(model.identity))
    assert EXAMINED not in (tmp_path / "v" / "report.html").read_text("utf-8")
    file = tmp_path / "v" / "warnings.json"
    for status in ("found", "not identifiable"):
        told = [Told("label_flips", status, "Words.")]
        write_json(file, warnings_form((), examined_form(told)))
        page = page_of(tmp_path / "v", rule, drawn=False)
        # Who verifies a bundle writes the page anew from this file.
        assert f"Label flips: {status}." in page
        assert EXAMINED in page


def test_no_references_examine_nothing_by_themselves() -> None:
    assert References.of(DataConfig()) == NO_REFERENCES
