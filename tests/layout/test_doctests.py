"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("dd_bench", "dd_bench.methods", "dd_bench.evaluators", "dd_bench.leaderboards")


def modules() -> list[str]:
    found = set(PACKAGES)
    for package in PACKAGES:
        root = importlib.import_module(package)
        found |= {m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.")}
    return sorted(found)


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_modules_to_test():
    assert len(modules()) > 60 and "dd_bench.methods.dm" in modules() and "dd_bench.data.digits" in modules()
