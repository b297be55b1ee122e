"""All scripts of `benchmarks/` can be imported, i.e. every name that they import from the core exists."""

import pytest

from .conftest import BENCHMARKS, script

SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_imported(name):
    assert script(name).__doc__
