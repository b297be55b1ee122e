"""Tests that the examples in docstrings run."""

import doctest
import importlib
import pkgutil

PACKAGES = ("dd_bench", "dd_bench.methods", "dd_bench.evaluators", "dd_bench.leaderboards")


def modules() -> list[str]:
    found = set(PACKAGES)
    for package in PACKAGES:
        root = importlib.import_module(package)
        found |= {m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.")}
    return sorted(found)


def test_examples():
    """Print each failure, and fail with the names of all modules that have one."""
    loaded = {name: importlib.import_module(name) for name in modules()}
    results = {name: doctest.testmod(m, optionflags=doctest.ELLIPSIS) for name, m in loaded.items()}
    assert not [name for name, result in results.items() if result.failed]
    assert results["dd_bench.runtime.seeding"].attempted, "the example of seed_for did not run"


def test_modules_are_found():
    assert len(modules()) > 60 and "dd_bench.methods.dm" in modules() and "dd_bench.data.digits" in modules()
