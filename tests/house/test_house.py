"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from sqlalchemy.pool import QueuePool

import headgate
from headgate import AsyncLeasePool, GateOptions, LeasePool

SOURCE = Path(headgate.__file__).parent
LEAVES = {
    "config",
    "errors",
    "names",
    "ledger",
    "queueing",
    "overload",
    "routes",
    "statements",
    "sql_words",
    "sql_types",
    "sql_clauses",
    "sql_walk",
    "ceilings",
    "sizing",
    "version",
    "seams",
    "sites",
}
WINGS = {"load": 2, "hosting": 2, "xray": 3, "lab": 4, "cli": 5, "__main__": 6}
LEAF, RUNTIME = 0, 1
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}


def rank(module: str) -> int:
    """How far up the house a module lives; it may import from its own floor and from those below."""
    room = module.removeprefix("headgate").lstrip(".").partition(".")[0]
    return WINGS.get(room, LEAF if room in LEAVES else RUNTIME)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str, *, inside_functions: bool) -> Iterator[str]:
    """The project's own modules that a module imports; those under TYPE_CHECKING don't count."""
    for parent in ast.walk(tree_of(module)):
        is_function = isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(parent, ast.If) and "TYPE_CHECKING" in ast.unparse(parent.test):
            parent.body.clear()
        nested = ast.walk(parent) if is_function and inside_functions else ast.iter_child_nodes(parent)
        if is_function != inside_functions:
            continue
        for node in nested:
            yield from targets(node)


def targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "headgate":
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in MODULES else node.module


GRAPH = {module: set(imports(module, inside_functions=False)) for module in MODULES}


def test_imports_never_go_up_the_house() -> None:
    wrong = [f"{one} imports {other}" for one in GRAPH for other in GRAPH[one] if rank(other) > rank(one)]
    assert wrong == []


def test_leaves_import_leaves_only() -> None:
    assert [m for m in GRAPH if rank(m) == LEAF and any(rank(other) != LEAF for other in GRAPH[m])] == []


def test_there_is_no_cycle() -> None:
    TopologicalSorter(GRAPH).prepare()


def test_imports_inside_functions_only_where_an_extra_may_be_missing() -> None:
    wrong = [f"{m} imports {other}" for m in MODULES for other in imports(m, inside_functions=True) if rank(m) < 5]
    assert wrong == [], "only the command line may wait with an import, because the lab's libraries are an extra"


def test_no_module_is_called_utils() -> None:
    assert not [module for module in MODULES if "util" in module or "helper" in module]


@pytest.mark.parametrize("path", sorted((SOURCE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_takes_its_defaults_from_the_code(path: Path) -> None:
    literals = [
        ast.unparse(keyword)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument")
        for keyword in node.keywords
        if keyword.arg == "default"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value not in (None, False)
    ]
    assert literals == [], "one default per option: it belongs to the dataclass that owns the option"


@pytest.mark.parametrize("ours", [LeasePool, AsyncLeasePool])
def test_our_pools_have_the_defaults_of_sqlalchemys(ours: type[QueuePool]) -> None:
    mine = inspect.signature(ours.__init__).parameters
    theirs = inspect.signature(QueuePool.__init__).parameters
    shared = [name for name, parameter in theirs.items() if name != "self" and parameter.kind.name != "VAR_KEYWORD"]
    assert {name: mine[name].default for name in shared} == {name: theirs[name].default for name in shared}


def test_database_leaves_its_defaults_to_the_options() -> None:
    parameters = inspect.signature(headgate.Database.__init__).parameters
    assert {parameters[field.name].default for field in dataclasses.fields(GateOptions)} == {None}


def test_sync_and_async_twins_have_the_same_methods() -> None:
    db = headgate.Database
    for sync, twin in (("session", "async_session"), ("transaction", "async_transaction")):
        assert (
            inspect.signature(getattr(db, sync)).parameters.keys()
            == inspect.signature(getattr(db, twin)).parameters.keys()
        )
    assert hasattr(headgate.Session, "pin")
    assert hasattr(headgate.AsyncSession, "pin")


def test_only_what_an_app_needs_is_at_the_top() -> None:
    assert sorted(headgate.__all__) == headgate.__all__
    assert all(hasattr(headgate, name) for name in headgate.__all__)


def test_options_with_a_default_are_documented_where_they_stand() -> None:
    for options in (headgate.GateOptions, headgate.LeaseOptions):
        assert all(f":ivar {name}:" in (options.__doc__ or "") for name in options.__dataclass_fields__)
