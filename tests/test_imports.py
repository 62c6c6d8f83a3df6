"""Imports point one way, heavy modules stay where they belong, and data folders are no packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("evaluators", "islands", "analysis", "evolve")
ALLOWED = {
    "evaluators": ("evaluators",),
    "islands": ("islands", "evaluators.schema", "evaluators.tunables"),
    "analysis": ("analysis", "evolve.store", "evaluators.schema"),
    "evolve": ("evolve", "evaluators", "islands", "analysis"),
}
RAY_MODULES = {
    "evaluators.worker",
    "evolve.cluster",
    "evolve.engine",
    "evolve.player",
    "evolve.pool",
    "evolve.population",
}
"""Where actors are made, asked or awaited; the command line must not pay for Ray before it runs."""
STANDALONE = {"evolve.champion_check"}
"""Exported beside a champion, never imported here."""

Import = tuple[str, str, bool]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(package: str) -> Iterator[Import]:
    """(importing module, imported name, whether at the module's top level)."""
    for file in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(file.read_text())
        top = {id(node) for node in _top_level(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield module_of(file), alias.name, id(node) in top
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} imports relatively"
                for alias in node.names:
                    yield module_of(file), f"{node.module}.{alias.name}", id(node) in top


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _top_level(node)


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    ours = (*PACKAGES, "kernels", "seeds", "tests", "benchmarks")
    found = list(imports(package))
    assert found
    wrong = [
        f"{module} imports {name}"
        for module, name, _ in found
        if within(name, ours) and not within(name, ALLOWED[package])
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_torch_is_imported_inside_functions_only(package: str) -> None:
    heavy = ("torch", "triton", "tilelang", "tvm", "tvm_ffi")
    wrong = [
        f"{module} imports {name}"
        for module, name, top in imports(package)
        if top and within(name, heavy) and module not in STANDALONE
    ]
    assert not wrong


def test_ray_is_imported_where_actors_are_made() -> None:
    found = {
        module
        for package in PACKAGES
        for module, name, _ in imports(package)
        if within(name, ("ray",))
    }
    assert found == RAY_MODULES


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("evolve.cli", ("torch", "ray", "pandas", "matplotlib", "triton", "tilelang")),
        ("evolve.cli, evolve.session, evolve.engine", ("torch", "triton", "tilelang")),
        ("evolve.output, evolve.verification", ("torch", "triton", "tilelang")),
        ("islands.island, evolve.emitters", ("torch", "ray", "pandas")),
    ],
)
def test_a_process_that_imports_our_modules_stays_light(
    modules: str, absent: tuple[str, ...]
) -> None:
    code = f"import sys, {modules}; print(*[m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("folder", ["kernels", "seeds"])
def test_data_folders_are_no_packages(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("folder", ["kernels", "seeds"])
def test_data_files_import_nothing_of_ours(folder: str) -> None:
    found = list(imports(folder))
    assert found
    wrong = [f"{module}: {name}" for module, name, _ in found if within(name, PACKAGES)]
    assert not wrong
