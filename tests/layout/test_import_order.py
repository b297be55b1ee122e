"""Tests of the strict order of packages: a package imports only those above it, also in nested imports."""

import importlib.util
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
assert SPEC is not None and SPEC.loader is not None
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)
ORDER, modules = architecture.ORDER, architecture.modules
CORE = ROOT / "dd_bench"
LEADERBOARDS_ORDER = ("core", "render", "admission", "website", "arguments", "cli")
TOP_LEVEL_MODULES = {"__init__", "__main__"}  # __init__ imports a few names of higher packages lazily


def upward(graph: dict[str, set[str]], root: str, order: tuple[str, ...]) -> list[str]:
    """The imports that violate the order of the packages."""

    def position(module: str) -> int | None:
        part = module.removeprefix(f"{root}.").split(".")[0]
        return order.index(part) if part in order else None

    return sorted(
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if (here := position(module)) is not None and (there := position(other)) is not None and there > here
    )


def test_every_package_has_a_position():
    found = {p.name if p.is_dir() else p.stem for p in CORE.iterdir() if p.is_dir() or p.suffix == ".py"}
    assert found - TOP_LEVEL_MODULES - {"__pycache__"} == set(ORDER)
    assert len([p for p in CORE.iterdir() if p.is_file()]) <= 8


def test_core_packages_import_only_those_above_them():
    assert upward(modules(CORE, "dd_bench"), "dd_bench", ORDER) == []


def test_leaderboards_packages_import_only_those_above_them():
    graph = modules(ROOT / "leaderboards", "dd_bench.leaderboards")
    assert upward(graph, "dd_bench.leaderboards", LEADERBOARDS_ORDER) == []
    pairs = {
        (m.split(".")[2], o.split(".")[2]) for m, others in graph.items() for o in others if m.count(".") > 2
    }
    assert ("admission", "render") not in pairs and ("render", "admission") not in pairs


def test_no_circular_imports():
    for root, name in (
        (CORE, "dd_bench"),
        *((ROOT / p, f"dd_bench.{p}") for p in ("methods", "evaluators", "leaderboards")),
    ):
        graph = {
            m: {o for o in others if o != name} for m, others in modules(root, name).items() if m != name
        }
        packages = {m for m in graph if (root / Path(*m.split(".")[name.count(".") + 1 :])).is_dir()}
        try:
            TopologicalSorter({m: o - packages for m, o in graph.items() if m not in packages}).prepare()
        except CycleError as error:
            raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_nested_imports_are_found(tmp_path):
    """Nested, relative and dynamic imports are found, so that the tests above can fail."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text(
        "def f():\n    from dd_bench.cli import main\n    import dd_bench.hub.hub\n    from ..api import Method\n"
        "    import_module('dd_bench.pipeline.run')\n"
    )
    for name in ("cli/main", "hub/hub", "api", "pipeline/run"):
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("")
    found = upward(modules(tmp_path, "dd_bench"), "dd_bench", ORDER)
    assert [line.rpartition(" ")[2] for line in found] == [
        "dd_bench.api",
        "dd_bench.cli.main",
        "dd_bench.hub.hub",
        "dd_bench.pipeline.run",
    ]


def test_architecture_page_is_up_to_date():
    page = ROOT / "docs" / "architecture.md"
    assert page.read_text() == architecture.page(), "run: make architecture"
