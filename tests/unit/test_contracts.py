"""The plan of the code, kept: rooms in their order, no circles, one seam to KFP."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
PACKAGES = ("safescale_ammt", "components", "pipelines", "images")


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*PACKAGES, cache_dir=None)


@pytest.fixture
def loggers_as_they_were():
    """import-linter 2 configures logging and so disables every logger there is."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    before = [logger.disabled for logger in loggers]
    yield
    for logger, disabled in zip(loggers, before, strict=True):
        logger.disabled = disabled


@pytest.mark.usefixtures("loggers_as_they_were")
def test_every_contract_holds(capsys):
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


def test_no_file_imports_itself_by_way_of_others(graph):
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    for module, direct in sorted(imports.items()):
        ways = (graph.find_shortest_chain(other, module) for other in direct)
        circles = [" -> ".join((module, *way)) for way in ways if way]
        assert not circles, circles[0]


def test_no_two_rooms_import_each_other(graph):
    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    pairs = {
        (room(module), room(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
        if room(module) != room(other)
    }
    assert not {pair for pair in pairs if pair[::-1] in pairs}


def test_one_module_touches_kfps_local_runner():
    # import-linter does not see into the packages of others.
    touching = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.ImportFrom):
                    module = node.module or ""
                    names = [module, *(f"{module}.{a.name}" for a in node.names)]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                if any(f"{name}.".startswith("kfp.local.") for name in names):
                    touching.append(path.relative_to(ROOT).as_posix())
    assert set(touching) == {"pipelines/local/kfp_seam.py"}
