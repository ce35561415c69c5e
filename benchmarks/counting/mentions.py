"""Mentions: which definitions of ours each function speaks of.

The code is annotated throughout, so annotations say what a value is: a parameter's,
a field's, a function's return. A container of things counts as the things. What has
no class of ours (a tensor, a string) is not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.counting.source import FUNCTIONS, Function, Source

Types = frozenset[str]
"""Classes of ours, `module:Class`, that a value may be of or hold."""
NOTHING: Types = frozenset()


@dataclass
class Class:
    """What is known of a class.

    Attributes:
        module: where it stands.
        node: its definition.
        methods: by name.
        fields: types by name, from annotations and from assignments to `self`.
    """

    module: str
    node: ast.ClassDef
    methods: dict[str, Function] = field(default_factory=dict)
    fields: dict[str, Types] = field(default_factory=dict)


class Index:
    """Functions and classes of a set of files, found by their names."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        self._known = {s.module for s in sources}
        self._imported: dict[str, dict[str, tuple[str, str]]] = {}
        for source in sources:
            self._take(source)
        for name, found in self.classes.items():
            self._take_fields(name, found)

    def resolve(self, module: str, name: str) -> str | None:
        """Returns `module:name` of what a name means in a module, if it is ours."""
        for _ in range(9):  # through re-exports
            here = f"{module}:{name}"
            if here in self.functions or here in self.classes:
                return here
            if name not in self._imported.get(module, {}):
                return None
            module, name = self._imported[module][name]
        return None

    def annotated(self, module: str, annotation: ast.expr | None) -> Types:
        """Returns the classes of ours that an annotation speaks of."""
        found: set[str] = set()
        for node in ast.walk(annotation) if annotation else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= self.annotated(module, _parsed(node.value))
            elif isinstance(node, ast.Name):
                name = self.resolve(module, node.id)
                found |= {name} if name in self.classes else set()
        return frozenset(found)

    def member(self, kind: str, name: str) -> tuple[str, Class] | None:
        """Returns the class, or the base of it, that has a method or field."""
        found = self.classes[kind]
        if name in found.methods or name in found.fields:
            return kind, found
        for base in found.node.bases:
            above = self.annotated(found.module, base) - {kind}
            for each in sorted(above):
                if inherited := self.member(each, name):
                    return inherited
        return None

    def _take(self, source: Source) -> None:
        module = source.module
        names = self._imported.setdefault(module, {})
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module in self._known:
                names |= {
                    a.asname or a.name: (str(node.module), a.name) for a in node.names
                }
        for node in source.tree.body:
            if isinstance(node, FUNCTIONS):
                self.functions[f"{module}:{node.name}"] = node
            elif isinstance(node, ast.ClassDef):
                found = Class(module, node)
                self.classes[f"{module}:{node.name}"] = found
                for item in node.body:
                    if isinstance(item, FUNCTIONS):
                        found.methods[item.name] = item
                        title = f"{module}:{node.name}.{item.name}"
                        self.functions[title] = item

    def _take_fields(self, name: str, found: Class) -> None:
        for node in found.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                types = self.annotated(found.module, node.annotation)
                found.fields[node.target.id] = types
        for title, method in found.methods.items():
            reader = Reader(self, f"{name}.{title}")
            for target, value in _assignments(method):
                if _is_own(target) and isinstance(target, ast.Attribute):
                    before = found.fields.get(target.attr, NOTHING)
                    found.fields[target.attr] = before | reader.types_of(value)


@dataclass(frozen=True)
class Value:
    """What is bound to a name: an expression, and the annotation beside it."""

    expression: ast.expr | None
    annotation: ast.expr | None = None


class Reader:
    """Reads one function: what its local names are, and what it mentions.

    Args:
        index: all definitions.
        title: the function's, `module:f` or `module:Class.method`.
    """

    def __init__(self, index: Index, title: str) -> None:
        self._index = index
        self.module, _, inside = title.partition(":")
        self.node = index.functions[title]
        self.names: dict[str, Types] = {}
        kind, _, method = inside.partition(".")
        every = self.node.args
        arguments = [*every.posonlyargs, *every.args, *every.kwonlyargs]
        for argument in arguments:
            self.names[argument.arg] = index.annotated(self.module, argument.annotation)
        if method and arguments:
            self.names[arguments[0].arg] = frozenset({f"{self.module}:{kind}"})
        for _ in range(2):  # a name may be used above where it is bound
            for target, value in _assignments(self.node):
                self._bind(target, self.types_of(value))

    def mentions(self) -> Iterator[str]:
        """Yields the functions, classes, methods and fields that are spoken of."""
        for node in ast.walk(self.node):
            if isinstance(node, ast.Name) and node.id not in self.names:
                if found := self._index.resolve(self.module, node.id):
                    yield found
            elif isinstance(node, ast.Attribute):
                yield from self._members(node)

    def types_of(self, value: Value) -> Types:
        """Returns what a bound value may be of, or hold."""
        found = self._index.annotated(self.module, value.annotation)
        return found or self.types(value.expression)

    def types(self, node: ast.expr | None) -> Types:
        """Returns what classes of ours an expression may be of, or hold."""
        match node:
            case ast.Name(id=name):
                if name in self.names:
                    return self.names[name]
                found = self._index.resolve(self.module, name)
                return frozenset({found}) if found in self._index.classes else NOTHING
            case ast.Attribute():
                return self._union(self._type_of(m) for m in self._members(node))
            case ast.Call(func=ast.Name(id=name)) if name not in self.names:
                found = self._index.resolve(self.module, name)
                return self._type_of(found) if found else self._of_parts(node)
            case ast.Call(func=function):
                return self.types(function)
            case ast.Lambda() | ast.Constant() | None:
                return NOTHING
            case _:
                return self._of_parts(node)

    def _of_parts(self, node: ast.expr) -> Types:
        parts = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
        return self._union(self.types(part) for part in parts)

    def _members(self, node: ast.Attribute) -> list[str]:
        pairs = [self._index.member(k, node.attr) for k in self.types(node.value)]
        return sorted(f"{pair[0]}.{node.attr}" for pair in pairs if pair)

    def _type_of(self, title: str) -> Types:
        """Returns what a function returns, a field holds, or a class makes."""
        if title in self._index.classes:
            return frozenset({title})
        module = title.partition(":")[0]
        if title in self._index.functions:
            returns = self._index.functions[title].returns
            return self._index.annotated(module, returns)
        kind, _, name = title.rpartition(".")
        return self._index.classes[kind].fields[name]

    @staticmethod
    def _union(parts: Iterator[Types]) -> Types:
        return frozenset().union(*parts)

    def _bind(self, target: ast.expr, types: Types) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.names[node.id] = self.names.get(node.id, NOTHING) | types


def _assignments(function: Function) -> Iterator[tuple[ast.expr, Value]]:
    """Yields what is bound in a function, and to what."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((target, Value(value)) for target in targets)
            case ast.AnnAssign(target=target, value=value, annotation=annotation):
                yield target, Value(value, annotation)
            case ast.NamedExpr(target=target, value=value):
                yield target, Value(value)
            case ast.For(target=target, iter=value):
                yield target, Value(value)
            case ast.comprehension(target=target, iter=value):
                yield target, Value(value)
            case ast.withitem(optional_vars=ast.expr() as target, context_expr=value):
                yield target, Value(value)
            case _:
                continue


def _is_own(target: ast.expr) -> bool:
    return (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    )


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
