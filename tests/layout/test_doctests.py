"""Tests that the examples in docstrings run."""

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("dd_bench", "dd_bench.methods", "dd_bench.evaluators", "dd_bench.leaderboards")


def files() -> dict[str, Path]:
    """The file of each module and package. Packages are imported, modules are not."""
    found = {}
    for package in PACKAGES:
        root = importlib.import_module(package)
        found[package] = Path(root.__file__)
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            found[info.name] = Path(find_spec(info.name).origin)
    return found


def test_examples():
    """Run the modules whose text has a prompt, because an import of all modules takes ten seconds."""
    names = sorted(name for name, path in files().items() if ">>> " in path.read_text())
    loaded = {name: importlib.import_module(name) for name in names}
    results = {name: doctest.testmod(m, optionflags=doctest.ELLIPSIS) for name, m in loaded.items()}
    assert not [name for name, result in results.items() if result.failed]
    assert not [name for name, result in results.items() if not result.attempted], "examples did not run"
    assert "dd_bench.runtime.seeding" in results


def test_modules_are_found():
    found = files()
    assert len(found) > 300 and {"dd_bench.methods.dm", "dd_bench.data.digits"} <= found.keys()
