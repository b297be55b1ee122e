"""The simulated device of `benchmarks/simulated_device.py`, and the fixtures of tests/conftest.py on it."""

import importlib
from pathlib import Path

import pytest

from dd_bench.runtime.lock_step import LockStep
from dd_bench.runtime.runtime import Runtime

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def simulated():
    """The module `simulated_device`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(
            BENCHMARKS
        )  # the modules of `benchmarks/` import each other as top-level modules
        return importlib.import_module("simulated_device")


@pytest.fixture
def counts(simulated):
    """Create the simulated device for the test, and return its counts."""
    with simulated.simulated_device() as counts:
        yield counts


@pytest.fixture(scope="session")
def runtime(simulated):
    """The simulated device in float32. As on CUDA, several networks are trained as one batched network."""
    return Runtime(
        simulated.DEVICE,
        precision="fp32",
        compile_after=None,
        workers=1,
        spread_after=0,
        lock_step=LockStep(8),
    )
