"""Changed copies of training rows: permitted, drawn by the seed, only learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from attack_world import rows as table_rows
from attack_world import schema as attack_schema
from attack_world import threat
from small_tables import HEADER, loans, spell
from training_world import GENOME, brief, prepare, prepared

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.table_threats import read_table_threat
from safescale_ammt.data.coding import Coding
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.row_changes import ChangeableRows
from safescale_ammt.errors import ConfigError
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.changed_rows import (
    changed_copies,
    drawn_choices,
    plain_text,
    views_with_copies,
)
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.plan import NO_COPIES, Plan, make_plan
from safescale_ammt.training.trainer import train

MOVES: dict[str, Any] = {"age": {"by": 2, "step": 1}, "city": "any"}


def law(changes: int = 1, **columns: Any) -> Constitution:
    """A gap that is enforced, and a promise on changed rows."""
    asked = {"changes": changes, "columns": columns or MOVES}
    steady = {"metric": "robust_accuracy", "threshold": 0.6, "threat": asked}
    gap = {"metric": "tpr_gap", "group": "gender", "threshold": 0.3}
    return Constitution.from_dict(
        {
            "schema": 1,
            "principles": [
                {"id": "steady", "constraint": steady},
                {"id": "fair", "constraint": gap},
            ],
            "groups": {"min_n": 20, "min_pos": 10},
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(prepared(tmp_path_factory.mktemp("loans")))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows of which several are about one person."""
    table = loans(1500)
    for i, row in enumerate(table):
        row[HEADER.index("id")] = f"person {i // 3}"
    folder = tmp_path_factory.mktemp("people")
    return Dataset.load(prepare(folder, spell(table), entity="id", drop=[]))


def plan_of(data: Dataset, rule: Constitution | None = None, **changes: Any) -> Plan:
    nets = GenomeNets(EncodedDataset(data), GENOME)
    return make_plan(nets, brief(**changes), rule or law())


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_a_drawn_choice_is_a_permitted_one_of_as_many_columns_as_may_be(
    changes: int,
) -> None:
    what = threat(
        changes,
        age={"by": 2, "step": 1, "range": [20, 40]},
        hours={"by": 3, "step": 1},
        job="any",
    )
    given = table_rows(
        age=[20.0, 40.0, None, 30.0, 90.0] * 40,
        hours=[1.0, 2.0, 3.0, None, None] * 40,
        job=["a", "b", None, "a", None] * 40,
    )
    rows = ChangeableRows(given, what, attack_schema())
    choices = drawn_choices(rows, changes, np.random.default_rng(0))
    for c, permitted in enumerate(rows.permitted):
        moved = choices[:, c] >= 0
        assert permitted[np.flatnonzero(moved), choices[moved, c]].all()
    able = np.sum([p.any(axis=1) for p in rows.permitted], axis=0)
    assert ((choices >= 0).sum(axis=1) == np.minimum(able, changes)).all()
    # A row that nothing can change is not changed, and none takes one way alone.
    assert (choices[4::5] == -1).all()
    assert len(np.unique(choices, axis=0)) > 5


def test_copies_are_changed_rows_with_label_groups_and_place_of_their_own(
    data: Dataset,
) -> None:
    (what,) = law().table_threats
    train_rows = data.splits["train"]
    coding = Coding(data.schema, "standard")
    drawn = [
        changed_copies(
            iter([train_rows]), data.schema, coding, [what], copies=2, seed=seed
        )
        for seed in (3, 3, 4)
    ]
    (found, origins), (again, same), (other, _) = drawn
    assert found is not None
    assert again is not None
    assert other is not None
    every = torch.arange(len(found))
    assert torch.equal(found.batch(every), again.batch(every))
    assert torch.equal(origins, same)
    assert not torch.equal(found.batch(every), other.batch(every))
    assert torch.equal(found.y, torch.from_numpy(train_rows.label)[origins])
    # Each is another row than its own, in one column alone.
    own = torch.from_numpy(coding.inputs(coding.codes(train_rows.features)))[origins]
    assert bool((found.batch(every) != own).any(dim=1).all())
    for name, codes in found.groups.items():
        mine = torch.from_numpy(train_rows.groups[name])[origins]
        assert torch.equal(codes.long(), mine)


@pytest.mark.parametrize("which", ["data", "people"])
def test_what_is_set_aside_has_no_copy_in_the_view_beside_it(
    which: str, request: pytest.FixtureRequest
) -> None:
    given: Dataset = request.getfixturevalue(which)
    columns = {"age": {"by": 2, "step": 1}}
    plain = plan_of(given, law(**columns))
    copied = plan_of(given, law(**columns), changed_copies=2)
    rows = len(plain.rows)
    assert copied.copies > rows
    assert len(copied.rows) == len(copied.strata) == rows + copied.copies
    # The rows themselves, the folds and what steers are those of before.
    every = torch.arange(rows)
    assert torch.equal(copied.rows.batch(every), plain.rows.batch(every))  # type: ignore[attr-defined]
    for one, other in zip(copied.held_out, plain.held_out, strict=True):
        assert torch.equal(one, other)
    nets: Any = copied.nets
    _, origins = nets.changed(
        law(**columns).table_threats, 2, copied.seed("changed copies")
    )
    for view, held, before in zip(
        copied.views, (*copied.held_out, torch.zeros(0)), plain.views, strict=True
    ):
        assert torch.equal(view[: len(before)], before)
        of = origins[view[len(before) :].long() - rows]
        assert set(of.tolist()) <= set(before.tolist())
        assert not set(of.tolist()) & set(held.tolist())
    if which == "people":
        # A copy is about the person of its row.
        entity = copied.rows.entity
        assert entity is not None
        assert torch.equal(entity[rows:], entity[:rows][origins])


def test_a_view_gets_the_copies_of_its_own_rows() -> None:
    views = (torch.tensor([0, 2], dtype=torch.int32), torch.arange(3).int())
    found = views_with_copies(views, torch.tensor([1, 2, 2]), 3)
    assert [view.tolist() for view in found] == [[0, 2, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert all(view.dtype == torch.int32 for view in found)


def test_texts_stay_texts() -> None:
    table = pa.table({"a": pa.array(["x", None]).dictionary_encode(), "b": [1.0, 2.0]})
    assert plain_text(table).schema.types == [pa.string(), pa.float64()]


def events(data: Dataset, rule: Constitution, **changes: Any) -> list[dict[str, Any]]:
    return list(plan_of(data, rule, **changes).events())


def test_the_log_says_how_many_there_are_and_where_there_are_none(
    data: Dataset,
) -> None:
    first = events(data, law(), changed_copies=1)
    assert first[0]["changed_copies"] > 500
    assert not [e for e in first if "steady" in str(e)]
    (said,) = [e for e in events(data, law()) if "steady" in str(e)]
    assert said["event"] == "left_out"
    # Without a promise there is nothing to copy by, which is said.
    fair = Constitution.from_dict(
        {**law().to_dict(), "principles": [law().to_dict()["principles"][1]]}
    )
    told = events(data, fair, changed_copies=1)
    assert {"event": "unapplied", "reason": NO_COPIES} in told
    assert "changed_copies" not in told[0]
    # A column that no row has within its range permits nothing.
    far = law(age={"by": 1, "step": 1, "range": [900, 901]})
    assert {"event": "unapplied", "reason": NO_COPIES} in events(
        data, far, changed_copies=1
    )


@pytest.mark.parametrize("value", [-1, 17, 1.5, "many"])
def test_a_number_of_copies_that_is_none_is_one_sentence(value: Any) -> None:
    with pytest.raises(ConfigError, match="changed_copies"):
        brief(changed_copies=value)


def test_a_section_without_copies_keeps_its_digest() -> None:
    assert "changed_copies" in brief().to_params()
    assert brief(changed_copies=0).digest == brief().digest
    assert brief(changed_copies=1).digest != brief().digest


def test_a_net_that_saw_changed_rows_is_another_and_the_same_by_its_seed(
    data: Dataset,
) -> None:
    def weights(copies: int) -> torch.Tensor:
        nets = GenomeNets(EncodedDataset(data), GENOME)
        config = brief(changed_copies=copies)
        return train(nets, config, law(), log=lambda event: None).agents

    none, one, again = weights(0), weights(1), weights(1)
    assert torch.equal(one, again)
    assert not torch.equal(one, none)


def test_trees_learn_from_copies_too(data: Dataset) -> None:
    from safescale_ammt.trees.trainer import train_trees
    from safescale_ammt.trees.tree_nets import TreeNets

    split: Split = data.splits["select"]

    def scores(copies: int) -> np.ndarray[Any, Any]:
        nets = TreeNets(EncodedDataset(data), TreeGenome(rounds=10))
        section = {"learner": "trees", "num_agents": 2, "changed_copies": copies}
        config = TrainingConfig.from_params(section)
        trained = train_trees(nets, config, law(), log=lambda event: None)
        model = nets.deployable(trained.agents[:1], "agent")
        rows = nets.rows("select")
        assert len(rows) == len(split)
        return rows.answers(model).score

    none, one, again = scores(0), scores(1), scores(1)
    assert (one == again).all()
    assert (one != none).any()


def test_a_threat_reads_as_the_constitution_does() -> None:
    asked = {"changes": 1, "columns": MOVES}
    assert law().table_threats == (read_table_threat(asked, "threat"),)
