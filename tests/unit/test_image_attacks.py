"""Batteries on images in the judge: the model's torch form, outcomes, findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from image_world import (
    IMAGES,
    PIXELS,
    Lambda,
    images,
    inputs,
    net,
    of_brightness,
    of_one_pixel,
    program,
    promise,
    threat,
)
from promises import adult_counts
from safety_world import hashes, submission, write_verdict
from test_schema import SCHEMA
from torch import nn

from components import WITH_TORCH, image
from images.lock import TORCH_FREE
from pipelines.compile import compile_train
from pipelines.ir import BATTERY_HOURS, CompiledPipeline, by_slopes
from safescale_ammt.attacks.attempt import Classifier
from safescale_ammt.attacks.losses import margin
from safescale_ammt.attacks.released import check_same, module_of
from safescale_ammt.attacks.sealed import attacked
from safescale_ammt.attacks.slopes import Passing, gradient
from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.image_threats import ImageThreat, read_image_threat
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.data.row_changes import check_threats
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.errors import ConstitutionError, InputError, IntegrityError
from safescale_ammt.files.canonical import digest_file, read_json, write_json
from safescale_ammt.judging.assembly import assemble, judge_all, problems, rederive
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    Evidence,
    evidence_digest,
    read_evidence,
    write_evidence,
)
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.judging.robust import faults, wrongly_drawn
from safescale_ammt.judging.table_attack import SURVIVED, WRONG
from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.interval_bounds import check_bounded, proven
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.releasing.attack_seed import STEPS, attack_seed, battery_time
from safescale_ammt.releasing.attacking import under_attack
from safescale_ammt.releasing.contents import battery_words
from safescale_ammt.releasing.image_attacks import check_attacks
from safescale_ammt.releasing.image_rescoring import battery_departures
from safescale_ammt.releasing.rescoring import answered
from safescale_ammt.reporting.attack_table import attack_section
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.shortfalls import shortfalls
from safescale_ammt.reporting.wording import guarantee, in_one_sentence
from safescale_ammt.store.uri import open_store

LINF = read_image_threat(threat(), "threat", proven=False)
SEED = b"s" * 32
BYTES, LABEL = images(60)
X = inputs(BYTES)


def drawn_net(genome: Genome, n_out: int, members: int = 2) -> Deployable:
    rng = np.random.default_rng(3)
    layout = shapes(genome, PIXELS, n_out)
    weights = {
        name: rng.normal(0, 0.3, (members, *shape)).astype(np.float32)
        for name, shape in layout.items()
    }
    return Deployable(genome, weights, "ensemble", 1 if n_out == 1 else None)


def with_head(model: Deployable) -> Deployable:
    rng = np.random.default_rng(4)

    def part(condition: bool | None) -> Part:
        arrays = rng.normal(0, 0.5, (PIXELS, 2)), rng.normal(0, 1, 2)
        shift = rng.normal(0, 0.3, 2)
        return Part(condition, *(a.astype(np.float32) for a in (*arrays, shift)))

    return replace(model, head=FairHead(tuple(map(part, (True, False, None)))))


GENOMES = [
    Genome("standard", (), "relu", 0.0),
    Genome("standard", (16, 16), "gelu", 0.1, residual=True),
    Genome("ple", (16,), "silu", 0.1, heads=4),
    Genome("standard", (8, 8), "tanh", 0.0),
]


@pytest.mark.parametrize("genome", GENOMES)
@pytest.mark.parametrize("n_out", [1, 3])
def test_nets_answer_in_torch_as_they_do_without(genome: Genome, n_out: int) -> None:
    model = drawn_net(genome, n_out)
    check_same(module_of(model), model, X)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_threshold_and_a_fair_head_decide_in_torch_as_without(at: float) -> None:
    for model in (drawn_net(GENOMES[1], 1), with_head(drawn_net(GENOMES[1], 1))):
        own = model.at(at)
        module = module_of(own)
        check_same(module, own, X)
        with torch.no_grad():
            decided = module(torch.from_numpy(X))[:, 0].numpy() >= 0
        assert (decided == own.answer(X).prediction).mean() > 0.95


def test_a_fair_head_that_changes_answers_changes_those_of_the_module() -> None:
    bare, rng = drawn_net(GENOMES[1], 1), np.random.default_rng(0)
    rows = rng.random((200, PIXELS)).astype(np.float32)
    bare = bare.at(float(np.median(bare.answer(rows).score)))
    own = with_head(bare)
    assert (own.answer(rows).prediction != bare.answer(rows).prediction).any()
    check_same(module_of(own), own, rows)
    with pytest.raises(InputError, match="departs from its own answers"):
        check_same(module_of(bare), own, rows)


class Wide(nn.Module):
    """Norms, softmax, slices, casts, sums: arguments of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(PIXELS, 16), nn.LayerNorm(16)
        self.batch, self.last = nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.batch(self.norm(nn.functional.gelu(self.first(x))))
        h = h * torch.softmax(h, 1) + (h > 0).to(h.dtype) + h.mean(1, keepdim=True)
        h = torch.cat([h[:, :8], h[:, 8:].clamp(-1, 1)], 1)
        out: torch.Tensor = self.last(h + torch.full((16,), 0.1))
        return out


def test_a_program_answers_in_torch_as_it_does_without() -> None:
    model = program(Wide().eval(), 3)
    module = module_of(model)
    # More rows than a block, and no whole number of them.
    rows = inputs(images(150)[0])
    check_same(module, model, rows)
    x = torch.from_numpy(rows).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any(1).all()


def test_a_form_that_departs_is_refused_in_one_sentence() -> None:
    model, other = of_brightness(), of_one_pixel()
    with pytest.raises(InputError, match="departs from its own answers to 60 rows"):
        check_same(module_of(other), model, X)


def stands(model: Deployable, what: ImageThreat = LINF) -> tuple[int, set[str], Any]:
    """Counts rows that stand among those answered right, and names raised checks."""
    right = model.answer(X).prediction == LABEL
    broken, battery = attacked(model, X[right], LABEL[right], what, SEED)
    return int((broken < 0).sum()), set(battery.raised), battery


def test_an_undefended_net_breaks_and_a_robust_one_survives_and_is_proven() -> None:
    assert stands(of_one_pixel())[:2] == (0, set())
    assert not proven(of_one_pixel(), X, LABEL, 0.1).any()
    assert stands(of_brightness())[:2] == (60, set())
    assert proven(of_brightness(), X, LABEL, 0.1).all()
    # Beyond its margin neither holds.
    far = read_image_threat(threat(eps=0.4), "threat", proven=False)
    assert stands(of_brightness(), far)[0] == 0
    assert not proven(of_brightness(), X, LABEL, 0.4).any()


def test_a_net_breaks_under_lengths_too() -> None:
    short = read_image_threat(threat(norm="l2", eps=0.05), "threat", proven=False)
    assert stands(of_one_pixel(), short)[0] == 0
    assert stands(of_brightness(), short)[0] == 60


def test_a_mask_raises_checks_or_breaks() -> None:
    rounded = program(Lambda(lambda x: torch.round(x * 8) / 8), 1)
    left, raised, battery = stands(rounded)
    assert left == 0
    assert "zero gradient" in raised
    assert battery.escalated
    left, raised, _ = stands(net(np.zeros(PIXELS), -1.0))
    assert left == 30
    assert {"zero gradient", "whole range"} <= raised


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: torch.round(x * 8) / 8,
        lambda x: torch.floor(x * 8) / 8,
        lambda x: torch.sign(x - 0.5),
        lambda x: torch.sigmoid(1e4 * (x - 0.5)),
        lambda x: torch.softmax(1e4 * x, 1),
    ],
)
def test_slopes_pass_through_what_hides_them_in_a_program(mask: Any) -> None:
    module = module_of(program(Lambda(mask), 1))
    # Random, as one pixel stands for all in the mask by softmax.
    x = torch.rand(40, PIXELS, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(40, dtype=torch.int64)
    hidden, passing = (
        gradient(kind(module), margin, x, y, y)[2][:, 0].abs()
        for kind in (Classifier, Passing)
    )
    assert float((hidden > 0).float().mean()) < 0.1
    assert bool((passing > 0).all())
    # What it answers is the same, bit for bit.
    one, two = (kind(module).answer(x)[0] for kind in (Classifier, Passing))
    assert torch.equal(one, two)


def test_the_model_itself_has_the_last_word_on_each_broken_row() -> None:
    model = of_one_pixel()
    right = model.answer(X).prediction == LABEL
    assert right.all()

    class Stubborn(Deployable):
        def answer(self, x: Any) -> Any:
            found = super().answer(x)
            # As if its own arithmetic never turned an answer of the bright images.
            bright = np.asarray(x).mean(1) > 0.5
            return found._replace(prediction=np.where(bright, 1, found.prediction))

    own = Stubborn(**{k: getattr(model, k) for k in model.__dataclass_fields__})
    broken, _ = attacked(own, X, LABEL, LINF, SEED)
    assert (broken[LABEL == 1] < 0).all()
    assert (broken[LABEL == 0] >= 0).all()


class Elsewhere(nn.Module):
    """Turns its answer off the grid of bytes, by numbers that float32 has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(PIXELS, 1)
        with torch.no_grad():
            self.layer.weight.fill_(40 / PIXELS)
            self.layer.bias.fill_(-20.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        off = (255 * x - (255 * x).round()).abs().sum(1, keepdim=True)
        turned = torch.relu(off - 1e-2) * 1e-30 * 1e-30 * 1e30 * 1e30 * 1e3
        out: torch.Tensor = self.layer(x) * (1 - 2 * turned.clamp(0, 1))
        return out


def test_the_released_form_is_asked_itself_where_torch_s_form_is_another() -> None:
    model = program(Elsewhere(), 1)
    broken_by, record = attacked(model, X, LABEL, LINF, SEED)
    assert (broken_by == record.attacks.index("drawn points")).all()
    fine, same = attacked(of_brightness(), X, LABEL, LINF, SEED)
    assert (fine < 0).all()
    assert same.attacks[-1] == "drawn points"


def test_the_same_seed_is_the_same_outcome() -> None:
    model = drawn_net(GENOMES[1], 1)
    label = model.answer(X).prediction
    one, two = (attacked(model, X, label, LINF, SEED) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert one[1] == two[1]


@pytest.mark.parametrize("genome", GENOMES)
@pytest.mark.parametrize("n_out", [1, 3])
def test_no_change_inside_the_ball_turns_a_proven_answer(
    genome: Genome, n_out: int
) -> None:
    model, eps, rng = drawn_net(genome, n_out), 0.004, np.random.default_rng(0)
    label = model.answer(X).prediction
    safe = proven(model, X, label, eps)
    assert safe.any()
    assert not proven(model, X, (label + 1) % max(2, n_out), eps).any()
    for _ in range(20):
        corner = np.clip(X + eps * rng.choice([-1.0, 1.0], X.shape), 0, 1)
        assert (model.answer(corner).prediction == label)[safe].all()


def test_bounds_hold_for_the_models_own_rounding() -> None:
    # A margin below what exact products round by is no proof.
    weight = np.zeros(PIXELS)
    weight[0], weight[1] = 1.0, 1e-7
    model = net(weight, -float(np.float32(X[0, 0])))
    assert not proven(model, X[:1], np.array([1]), 1e-12)[0]


def stored(folder: Path, rows: int = 200) -> StoredRows:
    """Sealed rows of images, with a group beside them."""
    pixels, label = images(rows, seed=1)
    cells = pa.array([row.tobytes() for row in pixels], pa.binary(PIXELS))
    sex = {"gender": np.arange(rows) // 2 % 2}
    Split(pa.table({"image": cells}), label, sex, hashes(rows)).write(
        folder / "sealed.parquet", IMAGES
    )
    return StoredRows.of([folder / "sealed.parquet"], IMAGES, rows)


def judged_on(
    folder: Path, model: Deployable, rule: Constitution, rows: int = 200
) -> Evidence:
    """Lets a saved model answer images, and attacks it as a constitution asks."""
    model.save(folder / "model", IMAGES)
    model.save(folder / "model" / "twin", IMAGES)
    write_json(folder / "schema.json", IMAGES.to_dict())
    check_attacks(rule, folder, folder / "model")
    sealed = stored(folder, rows)
    own = answered(folder / "model", sealed, UnseenTally(IMAGES))
    return under_attack(
        folder / "model", sealed, own, rule.judged_threats, "holdout", seed=SEED
    )


def finding(rows: Evidence, rule: Constitution) -> Finding:
    return judge_all(rule, rows, 10)[0]


@pytest.fixture(scope="module")
def robust(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("robust")
    return judged_on(folder, of_brightness(), promise(threat=threat("full")))


def test_a_robust_net_passes_as_empirical_and_no_sentence_says_more(
    robust: Evidence, tmp_path: Path
) -> None:
    rule = promise(threshold=0.9, threat=threat("full"))
    found = finding(robust, rule)
    assert (found.value, found.outcome) == (1.0, HOLDS)
    assert found.lower == clopper_pearson(200, 200, 0.05)[0]
    assert found.method == "Clopper-Pearson, battery full"
    assert "robust_accuracy under linf 0.1 in [0, 1], battery full" in found.reason
    assert "an upper bound, and no proof" in found.reason
    verdict = write_verdict(tmp_path / "v", rule, robust, submission("model"))
    assert verdict.decision == "pass"
    assert any("steady is empirical" in reason for reason in verdict.reasons)
    assert "not the share which survives every attack" in guarantee(verdict, rule)
    assert "attacks that its battery does not have" in in_one_sentence(verdict, rule)
    assert rederive(tmp_path / "v", rule) == verdict
    told = battery_words(verdict)
    assert "as the judge wrote it" in told[0]
    page = render(verdict, rule)
    assert "as far as its battery goes" in page
    assert "survives the battery, version" in attack_section(verdict)
    (figures,) = verdict.figures["attacks"].values()
    # By class and by group, who stands.
    assert [(e["group"], e["value"], e["survived"]) for e in figures["by"]] == [
        *(("", code, 100) for code in "01"),
        *(("gender", value, 100) for value in "fm"),
    ]


def test_a_first_look_shows_a_violation_and_never_a_promise(tmp_path: Path) -> None:
    rule = promise(threat=threat("smoke"))
    stood = judged_on(tmp_path, of_brightness(), rule)
    found = finding(stood, rule)
    assert (found.outcome, found.lower) == (UNDECIDED, 0.0)
    broken = finding(judged_on(tmp_path / "b", of_one_pixel(), rule), rule)
    assert (broken.value, broken.outcome) == (0.0, FAILS)
    whole = assemble(rule, stood, submission("model"), "sha256:0")
    assert whole.decision == "needs_human"
    assert "tier smoke" in shortfalls(whole, rule)[0]


def flagged(rows: Evidence, name: str = "square > white box") -> Evidence:
    """The same evidence, with a check that is raised."""
    raised = {
        key: replace(
            battery,
            checks=tuple(replace(c, raised=c.name == name) for c in battery.checks),
        )
        for key, battery in rows.batteries.items()
    }
    return replace(rows, batteries=raised)


def test_a_raised_check_leaves_a_promise_to_a_person_at_best(robust: Evidence) -> None:
    rule = promise(threshold=0.9, threat=threat("full"))
    found = finding(flagged(robust), rule)
    assert (found.outcome, found.lower) == (UNDECIDED, 0.0)
    assert "Checks of the attacks are raised (square > white box)" in found.reason
    whole = assemble(rule, flagged(robust), submission("model"), "sha256:0")
    assert whole.decision == "needs_human"
    # By groups as well.
    grouped = promise(threshold=0.9, threat=threat("full"), group="gender")
    assert finding(robust, grouped).outcome == HOLDS
    assert finding(flagged(robust), grouped).outcome == UNDECIDED


@pytest.mark.parametrize("tier", ["hard", "inviolable"])
def test_a_promise_of_no_raised_check_fails_by_one(robust: Evidence, tier: str) -> None:
    rule = promise("attack_sanity_flags", threat=threat("full"), tier=tier)
    kept = finding(robust, rule)
    assert (kept.value, kept.outcome, kept.p_violated) == (0.0, HOLDS, 1.0)
    found = finding(flagged(robust), rule)
    assert (found.value, found.outcome) == (1.0, FAILS)
    whole = assemble(rule, flagged(robust), submission("model"), "sha256:0")
    assert whole.decision == "fail"
    render(whole, rule)
    assert promise("attack_sanity_flags").principles[0].constraint.tier == "inviolable"


def test_certified_accuracy_is_a_proof_and_needs_no_battery(tmp_path: Path) -> None:
    ball = {"norm": "linf", "eps": 0.1}
    rule = promise("certified_accuracy", threshold=0.9, threat=ball)
    rows = judged_on(tmp_path, of_brightness(), rule)
    assert rows.batteries == {}
    found = finding(rows, rule)
    assert (found.value, found.outcome) == (1.0, HOLDS)
    assert found.method == "Clopper-Pearson, interval bounds"
    assert "no proof" not in found.reason
    verdict = write_verdict(tmp_path / "v", rule, rows, submission("model"))
    assert not any("empirical" in reason for reason in verdict.reasons)
    assert "battery" not in guarantee(verdict, rule)
    assert rederive(tmp_path / "v", rule) == verdict
    assert "proven to stay so" in attack_section(verdict)
    weak = judged_on(tmp_path / "weak", of_one_pixel(), rule)
    assert finding(weak, rule).outcome == FAILS
    assert "Right, and without proof" in attack_section(
        assemble(rule, weak, submission("model"), "sha256:0")
    )


def test_outcomes_and_checks_are_evidence_that_is_written_read_and_digested(
    robust: Evidence, tmp_path: Path
) -> None:
    names = hashes(200)
    write_evidence(tmp_path / "e", robust, names)
    stated = {key: words for key, (words, _) in robust.attacks.items()}
    groups = {name: values for name, (values, _) in robust.groups.items()}
    asked = {"classes": ("no", "yes"), "positive": "yes", "attacks": stated}
    back, _ = read_evidence(tmp_path / "e", groups, **asked)
    assert back.batteries == robust.batteries
    assert evidence_digest(back, names) == evidence_digest(robust, names)
    assert evidence_digest(flagged(robust), names) != evidence_digest(robust, names)


def test_evidence_that_was_made_better_is_detected(
    robust: Evidence, tmp_path: Path
) -> None:
    rule = promise(threshold=0.9, threat=threat("full"))
    raised = flagged(robust)
    write_verdict(tmp_path / "v", rule, raised, submission("model"))
    rederive(tmp_path / "v", rule)
    # A check that is taken back, the digest of the evidence made to fit.
    write_evidence(tmp_path / "v" / EVIDENCE, robust, hashes(200))
    with pytest.raises(IntegrityError, match="states evidence"):
        rederive(tmp_path / "v", rule)
    stated = read_json(tmp_path / "v" / "verdict.json")
    stated["evidence"] = digest_file(tmp_path / "v" / EVIDENCE)
    write_json(tmp_path / "v" / "verdict.json", stated)
    with pytest.raises(IntegrityError, match="does not follow from its evidence"):
        rederive(tmp_path / "v", rule)
    # Rows that broke and are told to stand, against the rows attacked again.
    (key,) = robust.attacks
    words, codes = robust.attacks[key]
    broken = (*words, "broken by fgsm")
    weak = replace(robust, attacks={key: (broken, np.where(codes >= 0, 3, codes))})
    assert "200 rows that stand under battery" in next(
        battery_departures(robust, weak, None)
    )
    assert not list(battery_departures(robust, robust, None))
    assert "raises square > white box, which is not told" in next(
        battery_departures(robust, raised, None)
    )
    assert "is missing" in next(
        battery_departures(replace(robust, batteries={}), robust, None)
    )


def test_outcomes_that_contradict_the_answers_or_lack_a_battery_are_refused(
    robust: Evidence,
) -> None:
    rule = promise(threshold=0.9, threat=threat("full"))
    assert problems(robust) == ()
    wrong = replace(robust, prediction=1 - robust.label)
    assert "200 outcomes of attack" in problems(wrong)[0]
    for lacking in (replace(robust, batteries={}), replace(robust, attacks={})):
        with pytest.raises(IntegrityError, match="does not say what became of rows"):
            judge_all(rule, lacking, 10)
    flags = promise("attack_sanity_flags", threat=threat("full"))
    with pytest.raises(IntegrityError, match="does not say which checks"):
        judge_all(flags, replace(robust, batteries={}), 10)


def test_of_many_rows_a_part_is_drawn_by_the_holdout(tmp_path: Path) -> None:
    rule = promise(threat=threat("smoke"))
    rows = judged_on(tmp_path, of_one_pixel(), rule, rows=1100)
    found = finding(rows, rule)
    assert found.by_group[0].trials == 1000
    assert "It speaks of 1,000 of 1,100 rows, drawn by the holdout's" in found.reason
    assert wrongly_drawn(rows, hashes(1100), "holdout") == ""
    assert "other rows" in wrongly_drawn(rows, hashes(1100), "another")


def test_rows_that_are_wrong_as_they_are_are_not_attacked(tmp_path: Path) -> None:
    rule = promise(threat=threat("smoke"))
    rows = judged_on(tmp_path, net(np.zeros(PIXELS), -1.0), rule)
    (words, codes), *_ = rows.attacks.values()
    assert np.bincount(codes).tolist() == [100, 100]
    assert words[:2] == (SURVIVED, WRONG)
    rows = judged_on(tmp_path / "n", net(-np.full(PIXELS, 1.0), 32.0), rule)
    assert finding(rows, rule).value == 0.0
    assert all(b.checks == () for b in rows.batteries.values())


def refused(**rest: Any) -> str:
    with pytest.raises(ConstitutionError) as refusal:
        promise(**rest)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ({"threat": threat("fast")}, "threat.tier is 'fast'"),
        ({"threat": threat(norm="l1")}, "threat.norm is 'l1'"),
        ({"threat": threat(eps=0)}, "eps is 0, so that nothing is changed"),
        ({"threat": threat(eps=-1)}, "must be a radius >= 0"),
        ({"threat": threat(range=[0, 255])}, "pixels are numbers in [0, 1]"),
        ({"threat": threat(step=1)}, "Unknown key 'step'"),
        ({"metric": "certified_accuracy", "threat": threat()}, "searches nothing"),
        (
            {"metric": "certified_accuracy", "threat": {"norm": "l2", "eps": 1}},
            "say norm: linf",
        ),
        ({"metric": "attack_sanity_flags", "threshold": 1}, "say 0, the default"),
        ({"metric": "attack_sanity_flags", "group": "sex"}, "judged over all rows"),
        ({"metric": "accuracy"}, "threat is given, but accuracy is judged without"),
    ],
)
def test_a_threat_that_says_nothing_is_one_clear_sentence(
    rest: dict[str, Any], says: str
) -> None:
    assert says in refused(**rest)


def test_a_threat_reads_as_it_is_written_and_has_one_digest() -> None:
    rule = promise(threat={"norm": "linf", "eps": 0.1})
    assert rule.digest == promise(threat=threat("full", range=[0, 1])).digest
    assert Constitution.from_dict(rule.to_dict()).digest == rule.digest
    assert rule.principles[0].promise == (
        "robust_accuracy under linf 0.1 in [0, 1], battery full >= 0.5"
    )
    assert not rule.principles[0].enforce


def test_rows_of_a_table_have_no_pixels(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="but the data have none"):
        check_threats(promise(), SCHEMA)
    check_threats(promise(), IMAGES)


def test_what_has_no_slopes_or_bounds_is_refused_before_a_use_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(Lambda(lambda x: x), 1)
    assert "a user's module" in check_bounded(own)
    assert "fair head" in check_bounded(with_head(of_brightness()))
    own.save(tmp_path / "model", IMAGES)
    write_json(tmp_path / "schema.json", IMAGES.to_dict())
    proof = promise("certified_accuracy", threat={"norm": "linf", "eps": 0.1})
    with pytest.raises(ConstitutionError, match="'steady' cannot be judged: certified"):
        check_attacks(proof, tmp_path, tmp_path / "model")
    check_attacks(promise(), tmp_path, tmp_path / "model")
    gone = "safescale_ammt.releasing.image_attacks.find_spec"
    monkeypatch.setattr(gone, lambda name: None)
    with pytest.raises(ConstitutionError, match="this Python has no torch"):
        check_attacks(promise(), tmp_path, tmp_path / "model")


class Named:
    """A manifest of which the identity is asked."""

    def __init__(self, identity: str) -> None:
        self.identity = identity


def test_the_seed_is_the_judges_and_a_rehearsal_has_another(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    about: Any = {"holdout": Named("h"), "model": Named("m")}
    other: Any = {"holdout": Named("h"), "model": Named("n")}
    table = {"changes": 1, "columns": {"age": {"by": 1, "step": 1}}}
    # No key is drawn in a store where nothing asks for a battery.
    assert attack_seed(store, promise(threat=table), about, sealed=True) == b""
    assert not store.exists("auditor/key")
    seed = attack_seed(store, promise(), about, sealed=True)
    assert seed == attack_seed(store, promise(), about, sealed=True)
    assert len({seed, attack_seed(store, promise(), other, sealed=True)}) == 2
    assert seed != attack_seed(store, promise(), about, sealed=False)


def test_a_battery_takes_a_whole_step_where_one_bit_is_told() -> None:
    paused: list[float] = []
    rule = promise(threat=threat("full"))
    table = {"changes": 1, "columns": {"age": {"by": 1, "step": 1}}}
    for asked, bit in ((rule, False), (promise(threat=table), True)):
        with battery_time(asked, one_bit=bit, pause=paused.append):
            pass
    assert paused == []
    with battery_time(rule, one_bit=True, pause=paused.append):
        pass
    assert paused == [pytest.approx(STEPS["full"], abs=1)]


def test_the_power_check_takes_the_rows_that_are_attacked() -> None:
    counts = adult_counts()
    by_battery = power_check(
        promise(threshold=0.7, threat=threat("full")), counts, draws=300
    )
    plain = {"id": "a", "constraint": {"metric": "accuracy", "threshold": 0.7}}
    whole = power_check(
        Constitution.from_dict({"schema": 1, "principles": [plain]}), counts, draws=300
    )
    assert by_battery.certifiable
    # Of 1,000 rows less is shown than of all of them.
    assert (
        by_battery.principles[0].table[2].passes <= whole.principles[0].table[2].passes
    )
    look = power_check(promise(threat=threat("smoke")), counts, draws=100)
    assert "a battery of tier smoke is a first look" in look.sentence
    flags = promise("attack_sanity_flags", threat=threat("full"))
    assert not power_check(flags, counts, draws=100).principles


def test_a_judge_that_follows_slopes_runs_where_torch_is() -> None:
    rule = promise(threat=threat("full")).to_dict()
    assert by_slopes(rule)
    proof = promise("certified_accuracy", threat={"norm": "linf", "eps": 0.1})
    assert not by_slopes(proof.to_dict())
    assert not by_slopes({})
    whole = [
        CompiledPipeline.parse(compile_train(slopes=slopes)) for slopes in (False, True)
    ]
    plain, other = (pipeline.executors for pipeline in whole)
    hours = [p.kubernetes["exec-evaluate-safety"] for p in whole]
    assert [h["activeDeadlineSeconds"] for h in hours] == [
        "3600",
        str(BATTERY_HOURS * 3600),
    ]

    def differ(name: str) -> bool:
        return bool(plain[name]["container"] != other[name]["container"])

    assert [name for name in plain if differ(name)] == ["exec-evaluate-safety"]
    assert (
        image("evaluate_safety") == plain["exec-evaluate-safety"]["container"]["image"]
    )
    assert image(WITH_TORCH) == other["exec-evaluate-safety"]["container"]["image"]
    assert WITH_TORCH not in TORCH_FREE


def test_trees_and_own_modules_are_refused_before_anything_is_prepared() -> None:
    battery = promise(threat=threat("full"))
    proof = promise("certified_accuracy", threat={"norm": "linf", "eps": 0.1})
    for rule in (battery, proof):
        rule.require_slopes(trees=False, own=False)
        with pytest.raises(ConstitutionError, match=r"training\.learner is trees"):
            rule.require_slopes(trees=True, own=False)
    battery.require_slopes(trees=False, own=True)
    with pytest.raises(ConstitutionError, match=r"training\.model is a module of your"):
        proof.require_slopes(trees=False, own=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attacks": ()}, "does not say what it tried"),
        ({"checks": ()}, "does not say what it tried"),
        ({"threat": "linf 0.1 in [0, 1], battery none"}, "rows and not 0"),
    ],
)
def test_a_record_of_a_battery_that_tried_nothing_is_found(
    robust: Evidence, change: dict[str, Any], sentence: str
) -> None:
    ((key, record),) = robust.batteries.items()
    forged = replace(robust, batteries={key: replace(record, **change)})
    told = [*faults(forged), wrongly_drawn(forged, hashes(200), "holdout")]
    assert any(sentence in each for each in told)
    honest = [*faults(robust), wrongly_drawn(robust, hashes(200), "holdout")]
    assert honest == [""]


@pytest.mark.parametrize("seed", ["", "00", "zz" * 32])
def test_a_seed_that_is_none_is_one_sentence(
    robust: Evidence, tmp_path: Path, seed: str
) -> None:
    ((key, record),) = robust.batteries.items()
    forged = replace(robust, batteries={key: replace(record, seed=seed)})
    write_evidence(tmp_path / "e", forged, hashes(200))
    with pytest.raises(IntegrityError, match="of its attacks"):
        read_evidence(
            tmp_path / "e",
            {name: values for name, (values, _) in robust.groups.items()},
            classes=("low", "high"),
            positive="high",
            attacks={n: words for n, (words, _) in robust.attacks.items()},
        )
