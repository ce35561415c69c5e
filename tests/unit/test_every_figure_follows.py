"""A forger edits one figure and makes everything else fit: which edits go unnoticed?

Each value of every JSON file in a bundle is changed in turn. Then all that tells of it
is written anew, as one who may write to the store can: findings, report, record, card
and every manifest. What `verify_bundle` lets through has to be what it names as no
evidence, and nothing else.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forger import sealed_again
from registered_world import write_parts
from safety_world import constitution, evidence, submission, write_verdict

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import SafescaleError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.bundle import verify_bundle, write_bundle
from safescale_ammt.releasing.card import write_card
from safescale_ammt.releasing.page import page_of
from safescale_ammt.releasing.record import write_record

Place = tuple[Any, ...]
NAMED = {("base_rates",): "the training rows' base rates"}
"""Of a verdict, where an edit may pass -> the words of what is no evidence."""
COPIES = {
    "constitution.json": ("", "model/", "verdict/"),
    "schema.json": ("", "model/"),
}
"""File -> where the same bytes lie in a bundle."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle whose verdict states everything that one can state."""
    place, rule = tmp_path_factory.mktemp("made"), constitution()
    model = read_manifest(write_parts(place).parent / "model")
    about = submission(model.identity)
    about = type(about)(
        **{**vars(about), "sampling": SamplingModel("rows", 700, 700, 700)}
    )
    write_verdict(place / "stated", rule, evidence(), about)
    write_bundle(
        place / "whole",
        model=place / "model",
        verdict=place / "stated",
        constitution=rule,
        registry=RegistryConfig(name="loans"),
    )
    verify_bundle(place / "whole")
    return place / "whole"


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yields the place of every value that holds no other."""
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*at, number))
    else:
        yield at


def edited(value: Any, at: Place) -> Any:
    """Returns the value with another one at a place: near, and of the same type."""
    value = copy.deepcopy(value)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    old = inner[at[-1]]
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int):
        new = old + 1
    elif isinstance(old, float):
        new = old * 1.001 + 1e-5
    else:
        new = 0.5 if old is None else old[:-1] + ("1" if old[-1:] == "0" else "0")
    inner[at[-1]] = new
    return value


def retold(bundle: Path, but: str) -> None:
    """Writes everything anew that tells of the verdict, but what was edited itself."""
    rule = Constitution.from_dict(read_json(bundle / "constitution.json"))
    # A verdict that cannot be read tells nothing: it is refused as it is.
    with suppress(SafescaleError, LookupError):
        verdict = Verdict.load(bundle / "verdict")
        if "findings" not in but:
            shutil.rmtree(bundle / "verdict/findings")
            for name, finding in verdict.finding_files().items():
                write_json(bundle / "verdict" / name, finding.to_dict())
        page = page_of(bundle / "verdict", rule, drawn=False)
        (bundle / "verdict/report.html").write_text(page)
    sealed_again(bundle)
    with suppress(SafescaleError, LookupError):
        verdict = Verdict.load(bundle / "verdict")
        trained, judged = (read_manifest(bundle / p) for p in ("model", "verdict"))
        if "record" not in but:
            write_record(bundle / "record", verdict, judged, rule, trained)
        card = write_card(
            *(verdict, judged.identity, rule, read_json(bundle / "schema.json")),
            name="loans",
            description="",
            warnings=(),
        )
        (bundle / "card.md").write_text(card)
    sealed_again(bundle)


def unnoticed(made: Path, file: str, folder: Path, step: int = 1) -> Iterator[Place]:
    """Yields the places of a file where an edit passes."""
    value = read_json(made / file)
    found = list(places(value))[::step]
    assert found
    for at in found:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        forged = json.dumps(edited(value, at))
        name = Path(file).name
        for place in COPIES.get(name, (file.removesuffix(name),)):
            write_json(folder / f"{place}{name}", json.loads(forged))
        with suppress(SafescaleError):
            retold(folder, file)
            verify_bundle(folder)
            yield at


def test_what_was_retold_without_an_edit_is_whole(made: Path, tmp_path: Path) -> None:
    """Or every edit would be found for what the forger gets wrong."""
    shutil.copytree(made, tmp_path / "same")
    retold(tmp_path / "same", "")
    verify_bundle(tmp_path / "same")


@pytest.mark.slow
def test_no_value_of_a_verdict_passes_but_what_is_named(
    made: Path, tmp_path: Path
) -> None:
    """Of its many figures every fifth."""
    told = " ".join(verify_bundle(made).not_evidence)
    for at in unnoticed(made, "verdict/verdict.json", tmp_path / "forged", 5):
        assert NAMED[at[:1]] in told, at


@pytest.mark.parametrize("key", ["use", "sampling", "alpha", "rows", "bins", "reasons"])
def test_no_small_part_of_a_verdict_passes(
    made: Path, tmp_path: Path, key: str
) -> None:
    value = read_json(made / "verdict/verdict.json")
    for at in places({key: value[key]}):
        bundle = tmp_path / "forged"
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(made, bundle)
        write_json(bundle / "verdict/verdict.json", edited(value, at))
        retold(bundle, "verdict.json")
        with pytest.raises(SafescaleError):
            verify_bundle(bundle)


@pytest.mark.parametrize(
    "file",
    [
        *("about.json", "verdict/warnings.json"),
        *("record/safety-decision.intoto.json", "record/test-result.intoto.json"),
    ],
)
def test_no_value_beside_a_verdict_passes(
    made: Path, tmp_path: Path, file: str
) -> None:
    passed = list(unnoticed(made, file, tmp_path / "forged"))
    # Name and description are their owner's, and the card tells of them.
    assert [at for at in passed if file != "about.json"] == []


def test_no_value_of_a_finding_passes(made: Path, tmp_path: Path) -> None:
    for file in sorted((made / "verdict/findings").iterdir()):
        name = file.relative_to(made).as_posix()
        assert list(unnoticed(made, name, tmp_path / "forged", 2)) == []
