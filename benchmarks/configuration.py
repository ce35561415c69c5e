"""Prints docs/configuration.md anew: every key of the config and the constitution.

python -m benchmarks configuration [--write]   --write puts it into the page

Names, types, defaults and meanings come from the dataclasses and their docstrings.
What a key accepts is what it answers to a wrong value, and each example is read by
the product before it is printed: a page that says something else is out of date.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Literal

import yaml

from benchmarks.configuration_examples import (
    BESIDE,
    CONSTRAINT,
    DEFAULTS,
    EXAMPLES,
    LINES,
    RAW,
    RULES,
)
from benchmarks.pages import DOCS, replaced, table
from safescale_ammt.config.section import Section, required_keys
from safescale_ammt.config.sections import SECTIONS
from safescale_ammt.constitution.constitution import (
    Constitution,
    GateRule,
    GroupRule,
    HumanRule,
)
from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.constitution.image_threats import FULL, ImageThreat
from safescale_ammt.constitution.principles import JUDGED, TIERS, Constraint, Principle
from safescale_ammt.constitution.table_threats import Change, TableThreat
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import json_form
from safescale_ammt.reporting.wording import METRICS

PAGE = DOCS / "configuration.md"
HEADS = ("key", "type", "default", "allowed", "meaning", "example")
_TYPES = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    tuple[tuple[str, Change], ...]: "mapping of a column to its change",
    Corruptions | None: "list of texts",
    int | Literal["auto"]: "whole number, or auto",
    float | Literal["auto"]: "number, or auto",
}
# Values that some keys refuse; the refusal says what they would take.
_WRONG: Mapping[Any, tuple[Any, ...]] = {
    int: (-1, 2, 10**9),
    float: (-1, 2, 1e9),
    bool: (True, False),
    str: ("?", "??"),
    tuple: (["?"], [], ["?", "?"]),
    dict: ({"?": 1}, {"?": "?"}),
}
_SAYS = (
    r"expected (?:one of )?(?P<says>.+?)(?:; the nearest is .*)?\.$",
    r"must (?:be |map )?(?P<says>.+?)(?:, found .*)?\.$",
    r"outside (?P<says>.+?)\.$",
)


def flow(value: Any) -> str:
    """Returns a value as YAML in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("...\n").strip() if value != "" else '""'


def code(text: str) -> str:
    """Returns a text as code; nothing if there is none."""
    return f"`{text}`" if text else ""


def meanings(owner: type) -> dict[str, str]:
    """Returns field -> meaning, from the texts below fields and from `Attributes:`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    part = (ast.get_docstring(tree) or "").partition("Attributes:\n")[2]
    # An entry goes on in lines that are indented further.
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(part.split("\n\n")[0])):
        names, colon, text = entry.partition(":")
        if colon:
            found |= dict.fromkeys(map(str.strip, names.split(",")), text)
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            name = node.target.id if isinstance(node.target, ast.Name) else ""
            if isinstance(after.value, ast.Constant):
                found[name] = str(after.value.value)
    texts = {name: " ".join(text.split()) for name, text in found.items()}
    # A word, and no name such as bf16.
    return {
        name: text[0].upper() + text[1:] if re.match("[a-z]+ ", text) else text
        for name, text in texts.items()
    }


def kind(hint: Any) -> str:
    """Returns a type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return _TYPES[hint]
    if origin is Literal:
        return "one of these"
    if origin is tuple:
        return f"list of {kind(args[0])}s"
    if typing.is_typeddict(hint):
        return "keys below"
    if origin is None or type(None) in args:
        rest = [arg for arg in args if arg is not type(None)]
        return kind(rest[0]) if rest else str(getattr(hint, "__name__", hint))
    return f"mapping of text to {kind(args[1])}"


def refusal(read: Callable[[Any], object], where: str, wrong: tuple[Any, ...]) -> str:
    """Returns what a key would take, from the sentence that refuses another value.

    Args:
        read: parses a whole file or section with this value in it.
        where: the key as sentences name it.
        wrong: values to try, in turn.
    """
    for value in wrong:
        try:
            read(value)
        except InputError as error:
            sentence = str(error)
            for pattern in _SAYS:
                match = re.search(pattern, sentence)
                if where in sentence and match:
                    return in_yaml(match["says"])
    return ""


def in_yaml(words: str) -> str:
    """Returns the words of a refusal as an author of YAML reads them."""
    # A type is no news in a column of its own.
    if words in ("text", "a list", "a mapping"):
        return ""
    words = re.sub(r"\b(True|False)\b", lambda found: found[0].lower(), words)
    words = re.sub(r"^(?=[\[(])", "in ", words)
    return words.replace(" in this version", ", in this version")


def wrong_values(hint: Any) -> tuple[Any, ...]:
    """Returns values of a type that its key may refuse."""
    origin = typing.get_origin(hint) or hint
    if origin not in _WRONG and typing.get_args(hint):
        return wrong_values(typing.get_args(hint)[0])
    return _WRONG.get(origin, ())


def example(section: type[Section], key: str, hint: Any, default: Any) -> str:
    """Returns lines that use a key and that its section accepts.

    Raises:
        InputError: the example that is written down is refused.
    """
    where = f"{section.section}.{key}"
    others = {
        Literal: [arg for arg in typing.get_args(hint) if arg != default],
        bool: [not default],
    }
    guesses = others.get(typing.get_origin(hint) or hint, [])
    if hint in (int, float):
        guesses = [default * 2 or 1, default // 2 if hint is int else default / 2]
    guesses = [*guesses, default]
    given = [EXAMPLES[where]] if where in EXAMPLES else [{key: g} for g in guesses]
    for lines in given:
        for beside in ({}, RAW.get(section.section, {})):
            try:
                section.from_params({**beside, **lines})
            except InputError:
                continue
            return flow(lines)[1:-1] if len(lines) > 1 else f"{key}: {flow(lines[key])}"
    section.from_params(given[0])
    raise InputError(f"{where} has no example; benchmarks/configuration_examples.py.")


def default_of(field: Field[Any]) -> Any:
    """Returns a field's default in its JSON form."""
    made = field.default_factory
    return json_form(field.default if made is MISSING else made())


def allowed(section: type[Section], key: str, hint: Any) -> str:
    """Returns what a key of a section takes, in words."""
    if typing.get_origin(hint) is Literal:
        return ", ".join(code(flow(word)) for word in typing.get_args(hint))

    def read(value: Any) -> object:
        return section.from_params({key: value})

    return refusal(read, f"{section.section}.{key}", wrong_values(hint))


def section_rows(section: type[Section]) -> Iterator[tuple[str, ...]]:
    """Yields a row for each key of a section, those of nested keys below theirs."""
    hints, texts = typing.get_type_hints(section), meanings(section)
    for field in fields(section):
        name, hint = field.name, hints[field.name]
        default = default_of(field)
        yield (
            code(name),
            kind(hint),
            code(flow(default)),
            allowed(section, name, hint),
            texts.get(name, ""),
            code(example(section, name, hint, default)),
        )
        for owner in filter(typing.is_typeddict, typing.get_args(hint)):
            for key, inner in typing.get_type_hints(owner).items():
                needed = "required" if key in required_keys(owner) else "none"
                meaning = meanings(owner).get(key, "")
                yield code(f"{name}.NAME.{key}"), kind(inner), needed, "", meaning, ""


OWNERS: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    ("constitution", Constitution, ("principles", "gate", "groups", "human")),
    ("principles[]", Principle, ("constraint", "enforce")),
    # Losses are read by the Python API alone, whose page tells them.
    (
        "principles[].constraint",
        Constraint,
        ("threat", "loss", "table_threat", "image_threat", "doubted"),
    ),
    ("principles[].constraint.threat", TableThreat, ()),
    ("principles[].constraint.threat", Threat, ()),
    ("principles[].constraint.threat", ImageThreat, ("ball",)),
    ("principles[].train", Principle, ("id", "text", "why", "constraint")),
    ("gate", GateRule, ()),
    ("groups", GroupRule, ()),
    ("human", HumanRule, ()),
)
"""Where a key of a constitution stands, its dataclass, what of it stands elsewhere."""


def placed(where: str, lines: Mapping[str, Any], base: Mapping[str, Any]) -> Any:
    """Returns a constitution with these lines in one of its parts."""
    part = where.partition("[].")[2]
    principle: dict[str, Any] = {"id": "p", "constraint": base}
    if part == "constraint.threat":
        threat = {**base["threat"], **lines}
        principle["constraint"] = {**base, "threat": threat}
    elif part:
        principle[part] = {**principle.get(part, {}), **lines}
    elif where == "principles[]":
        principle |= lines
    whole: dict[str, Any] = {"schema": 1, "principles": [principle]}
    return whole if "[]" in where else {**whole, where: lines}


def rule_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each key of a constitution."""
    # Defaults filled in: the canonical form of a file that states what it must.
    plain = Constitution.from_dict(placed("gate", {}, CONSTRAINT)).to_dict()
    (principle,) = plain["principles"]
    parts = {
        f"principles[].{part}": principle[part] for part in ("constraint", "train")
    }
    plain |= {"principles[]": principle, **parts}
    plain["principles[].constraint.threat"] = {"range": [0, 1], "tier": FULL}
    for where, owner, elsewhere in OWNERS:
        hints, texts = typing.get_type_hints(owner), meanings(owner)
        for name in (f.name for f in fields(owner) if f.name not in elsewhere):
            default = DEFAULTS.get(name) or code(flow(plain[where].get(name)))
            lines = RULES.get(f"{where}.{name}", {name: plain[where].get(name)})
            yield (
                code(f"{where}.{name}"),
                kind(hints[name]),
                default,
                ruled(where, lines, hints[name]),
                texts.get(name, ""),
                code(f"{name}: {flow(lines[name])}"),
            )


def ruled(where: str, lines: Mapping[str, Any], hint: Any) -> str:
    """Returns what a key of a constitution takes; `lines` hold an example of it.

    Raises:
        InputError: the example is refused.
    """
    name = next(iter(lines))
    base = LINES.get(name, CONSTRAINT)

    def read(value: Any) -> object:
        return Constitution.from_dict(placed(where, {name: value}, base))

    read(lines[name])
    return refusal(read, name, wrong_values(hint))


def accepted(constraint: Mapping[str, Any], **train: Any) -> Principle | None:
    """Returns a principle with this constraint, None if it is refused."""
    raw = placed("principles[]", {"train": train}, constraint)
    try:
        return Constitution.from_dict(raw).principles[0]
    except InputError:
        return None


def metric_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each metric: what a promise about it may say."""
    for metric in JUDGED:
        line = {"metric": metric, "threshold": 0.1, **BESIDE.get(metric, {})}
        by, alone = {**line, "group": "sex"}, line
        tiers = {
            tier: [c for c in (by, alone) if accepted({**c, "tier": tier})]
            for tier in TIERS
        }
        forms = next(found for found in tiers.values() if found)
        grouped = "either" if len(forms) > 1 else "needed" if by in forms else "none"
        hard = {} if tiers["hard"] else {"tier": "soft"}
        principle = accepted({**forms[0], **hard})
        assert principle is not None
        op = principle.constraint.op
        shown = {**forms[0], **hard, "op": op, "threshold": 0.1 if op == "<=" else 0.8}
        shown |= BESIDE.get(metric, {})
        yield (
            code(metric),
            METRICS.get(metric, metric),
            code(op),
            grouped,
            ", ".join(tier for tier, found in tiers.items() if found),
            trained_for(shown),
            code(flow(shown)),
        )


def trained_for(constraint: Mapping[str, Any]) -> str:
    """Says whether training works on a promise: by default, on demand or never."""
    by_default = accepted(constraint)
    if by_default is not None and by_default.enforce:
        return "by default"
    return "on demand" if accepted(constraint, enforce=True) else "no"


def generated() -> dict[str, str]:
    """Returns the page's parts by the names of their marks."""
    parts = []
    for name, section in SECTIONS.items():
        title = inspect.cleandoc(section.__doc__ or "")
        parts.append(f"### `{name}`\n{title}\n\n{table(HEADS, section_rows(section))}")
    heads = ("metric", "means", "reads", "group", "tiers", "trained for", "example")
    return {
        "config keys": "\n".join(parts),
        "constitution keys": table(HEADS, rule_rows()),
        "metrics": table(heads, metric_rows()),
    }


def page(text: str) -> str:
    """Returns the page as the code has it now."""
    for name, part in generated().items():
        text = replaced(text, name, part)
    return text


def main() -> None:
    """Prints the page, or writes it."""
    text = page(PAGE.read_text(encoding="utf-8"))
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
