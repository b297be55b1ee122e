"""`make architecture`: draws packages and the imports between them into `docs/architecture.md`.

The text of a package is the first line of its docstring; the arrows are read from the code. A test compares the
committed page with what this writes, and the imports with the order of the packages.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "runtime",
    "records",
    "data",
    "models",
    "synthetic",
    "training",
    "teachers",
    "distill",
    "evaluation",
    "api",
    "pipeline",
    "hub",
    "cli",
)
"""The packages of `dd_bench`: each imports only those before it."""
PLUGINS = ("methods", "evaluators", "leaderboards")


def imported(path: Path, package: str) -> Iterator[str]:
    """Yields the absolute names of the modules that a file imports, wherever in the file; `package` is its own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def modules(root: Path, name: str) -> dict[str, set[str]]:
    """Returns the modules below `root`, a package called `name`, each with the modules of it that it imports."""
    known = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        known[".".join((name, *parts)).removesuffix(".__init__")] = path
    found = {}
    for module, path in known.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = {m for m in imported(path, package) if m in known and m != module}
    return found


def first_line(path: Path) -> str:
    """Returns the first line of the docstring of a module or package."""
    text = ast.get_docstring(ast.parse((path / "__init__.py" if path.is_dir() else path).read_text())) or ""
    return text.partition("\n")[0]


def arrows() -> Counter[tuple[str, str]]:
    """Returns how many modules of a package import one of another, for the core and the plug-ins."""
    found: Counter[tuple[str, str]] = Counter()
    core = modules(ROOT / "dd_bench", "dd_bench")
    for module, others in core.items():
        here = module.split(".")[1:2]
        found.update(
            {(here[0], o.split(".")[1]) for o in others if here and o.count(".") and here[0] in ORDER}
        )
    for plugin in PLUGINS:
        for path in (p for p in (ROOT / plugin).rglob("*.py") if "migrations" not in p.parts):
            names = set(imported(path, f"dd_bench.{plugin}"))
            found.update({(plugin, p) for p in ORDER if any(n.startswith(f"dd_bench.{p}") for n in names)})
    return Counter({pair: n for pair, n in found.items() if pair[0] != pair[1] and pair[1] in ORDER})


def page() -> str:
    """Returns the page."""
    found = arrows()
    graph = networkx.DiGraph(sorted(found))
    reduced = networkx.transitive_reduction(graph)
    lines = [
        f"    {a} --> {b}" for a, b in sorted(reduced.edges, key=lambda e: (-_place(e[0]), -_place(e[1])))
    ]
    rows = []
    for name in (*ORDER, *PLUGINS):
        path = ROOT / name if name in PLUGINS else ROOT / "dd_bench" / name
        path = path if path.is_dir() else path.with_suffix(".py")
        used = ", ".join(f"`{b}`" for b in ORDER if (name, b) in found) or "nothing"
        rows.append(f"| `{path.relative_to(ROOT)}` | {first_line(path)} | {used} |")
    template = (ROOT / "docs" / "architecture.md.in").read_text()
    picture = "\n".join(["```mermaid", "graph TD", *lines, "```"])
    table = "\n".join(["| package | what it holds | imports |", "|---|---|---|", *rows])
    head = "<!-- Written by `make architecture` from docs/architecture.md.in and the imports: do not edit. -->\n\n"
    return head + template.replace("{{ picture }}", picture).replace("{{ packages }}", table)


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER) + PLUGINS.index(name)


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.md").write_text(page())
    sys.stdout.write("docs/architecture.md\n")
