"""Which fields of a dataclass some line of code reads: types followed through the AST.

A name alone proves nothing, as five sections have a `seed`. So an attribute counts
only where its owner's class is known: from an annotation, from a call of the class
or of a function that says what it returns, or from an attribute of a known class.
What a class does with its own fields in `__post_init__` is a check and no reading, and
`to_dict` only writes down again what was written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Types = frozenset[str]
NOTHING: Types = frozenset()
Function = ast.FunctionDef | ast.AsyncFunctionDef
_COPIES = ("replace", "copy", "deepcopy")


@dataclass
class Code:
    """Classes and functions of a tree by name, and what their annotations say.

    Attributes:
        modules: the parsed files.
        members: class -> attribute or method -> classes of its value.
        returns: function -> classes that it returns.
        constants: tuples and mappings that stand outside of functions.
    """

    modules: list[ast.Module]
    members: dict[str, dict[str, Types]] = field(default_factory=dict)
    returns: dict[str, Types] = field(default_factory=dict)
    constants: dict[str, ast.AST] = field(default_factory=dict)

    @classmethod
    def parse(cls, files: Iterable[Path]) -> Code:
        """Parses files and follows annotations until nothing new is learnt."""
        code = cls([ast.parse(f.read_text(encoding="utf-8")) for f in files])
        nodes = [node for module in code.modules for node in ast.walk(module)]
        classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
        code.members = {node.name: {} for node in classes}
        tops = [node for module in code.modules for node in module.body]
        for target, value in (pair for node in tops for pair in _assignments(node)):
            code.constants[ast.unparse(target)] = value
        for node in nodes:
            if isinstance(node, Function):
                found = code.named(node.returns, "")
                code.returns[node.name] = code.returns.get(node.name, NOTHING) | found
        # An attribute may be of a class whose own attributes are learnt later.
        for _ in range(3):
            for node in classes:
                code._learn(node)
        return code

    def named(self, annotation: ast.AST | None, owner: str) -> Types:
        """Returns the known classes in an annotation; `Self` is the owner."""
        if annotation is None:
            return NOTHING
        names = set()
        for node in ast.walk(annotation):
            if isinstance(node, ast.Name):
                names.add(owner if node.id == "Self" else node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(re.findall(r"\w+", node.value))
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
        return frozenset(names & self.members.keys())

    def _learn(self, node: ast.ClassDef) -> None:
        members = self.members[node.name]
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                members[item.target.id] = self.named(item.annotation, node.name)
            elif isinstance(item, Function):
                members[item.name] = self.named(item.returns, node.name)
        for item in node.body:
            if isinstance(item, Function):
                for name, types in self.locals(item, node.name).items():
                    if name.startswith("self."):
                        key = name.removeprefix("self.")
                        members[key] = members.get(key, NOTHING) | types

    def locals(self, function: Function, owner: str) -> dict[str, Types]:
        """Returns the classes of a function's names, and of what it puts on `self`."""
        arguments = function.args
        known = {
            a.arg: self.named(a.annotation, owner)
            for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        }
        if owner and arguments.args:
            known.setdefault(arguments.args[0].arg, NOTHING)
            known[arguments.args[0].arg] |= {owner}
        for node in ast.walk(function):
            for target, value in _assignments(node):
                if isinstance(target, ast.Name | ast.Attribute):
                    name = ast.unparse(target)
                    found = self.types(value, known, owner)
                    known[name] = known.get(name, NOTHING) | found
        return known

    def types(self, node: ast.AST, known: Mapping[str, Types], owner: str) -> Types:
        """Returns the classes that an expression may be of."""
        match node:
            case ast.Name(id=name):
                return known.get(name, NOTHING)
            case ast.Attribute(value=value, attr=name):
                owners = self.types(value, known, owner)
                here = known.get(ast.unparse(node), NOTHING)
                return here.union(*(self.members[o].get(name, NOTHING) for o in owners))
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                name in self.members
            ):
                # A class method: `from_params` of a section gives that section.
                return self.members[name].get(method, NOTHING) or frozenset({name})
            case ast.Call(func=function, args=arguments):
                name = ast.unparse(function).rpartition(".")[2]
                if name in _COPIES and arguments:
                    return self.types(arguments[0], known, owner)
                if name == "cast":
                    return self.named(arguments[0], owner)
                if name in self.members:
                    return frozenset({name})
                if isinstance(function, ast.Attribute):
                    return self.types(function, known, owner)
                return self.returns.get(name, NOTHING)
            case ast.IfExp() | ast.BoolOp() | ast.NamedExpr():
                parts = ast.iter_child_nodes(node)
                return NOTHING.union(*(self.types(p, known, owner) for p in parts))
        return NOTHING

    def reads(self) -> set[tuple[str, str]]:
        """Returns (class, attribute) of every attribute that some line reads."""
        found: set[tuple[str, str]] = set()
        for function, owner in self._functions():
            if function.name == "to_dict":
                continue
            known, names = self.locals(function, owner), self._looped(function)
            for node in ast.walk(function):
                for value, name in _attributes(node, names):
                    owners = self.types(value, known, owner)
                    if function.name == "__post_init__":
                        owners -= {owner}
                    found |= {(o, name) for o in owners}
        return found

    def _looped(self, function: Function) -> dict[str, list[str]]:
        """Returns the texts that each loop variable takes, where they stand written."""
        looped: dict[str, list[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.For | ast.comprehension):
                source: ast.AST | None = node.iter
                if isinstance(source, ast.Name):
                    source = self.constants.get(source.id)
                looped.setdefault(ast.unparse(node.target), []).extend(_texts(source))
        return looped

    def _functions(self) -> Iterator[tuple[Function, str]]:
        for module in self.modules:
            inside = {
                id(item): node.name
                for node in ast.walk(module)
                if isinstance(node, ast.ClassDef)
                for item in node.body
            }
            for node in ast.walk(module):
                if isinstance(node, Function):
                    yield node, inside.get(id(node), "")


def _assignments(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yields target and value, of loops too; tuples of equal length one by one."""
    # A list's annotation names what it holds, so a loop over it has that class.
    if isinstance(node, ast.For | ast.comprehension):
        yield node.target, node.iter
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            both = (target, node.value)
            sides = [side.elts for side in both if isinstance(side, ast.Tuple)]
            starred = any(isinstance(e, ast.Starred) for own in sides for e in own)
            if len(sides) == 2 and not starred:
                yield from zip(*sides, strict=True)
            else:
                yield both


def _texts(node: ast.AST | None) -> list[str]:
    """Returns the texts of a written tuple, list or set, or of a mapping's keys."""
    elements: Iterable[ast.AST | None] = ()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        elements = node.elts
    elif isinstance(node, ast.Dict):
        elements = node.keys
    values = [e.value for e in elements if isinstance(e, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def _attributes(
    node: ast.AST, looped: Mapping[str, list[str]]
) -> Iterator[tuple[ast.AST, str]]:
    """Yields owner and name of `owner.name`, and of `getattr(owner, name)`."""
    match node:
        case ast.Attribute(value=value, attr=name, ctx=ast.Load()):
            yield value, name
        case ast.Call(
            func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name))]
        ):
            yield value, name
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Name(id=name)]):
            yield from ((value, text) for text in looped.get(name, ()))
