"""Golden counts of waits and launches per step, by method, protocol, number of networks, evaluator and dataset.

A new `.item()` in a loop fails here, and the message names its line. Each case is a whole short run on the simulated
device, so a mixture of devices fails too. To update the file: `python benchmarks/launches.py`.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class

from dd_bench.records.config_diff import shipped_yaml

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    launches = importlib.import_module("launches")

GOLDEN = json.loads(launches.OUT.read_text())
CASES = {
    (kind, name): overrides for kind, group in launches.cases().items() for name, overrides in group.items()
}
FAST = {
    ("methods", "dm"),
    ("methods", "mtt"),
    ("methods", "doscond"),
    ("networks", "dsa-1000 x1"),
    ("networks", "dsa-1000 x5"),
    ("data", "digits"),
    ("data", "motifs"),
}
SAME_TORCH = GOLDEN["machine"]["versions"]["torch"].split(".")[:2] == torch.__version__.split(".")[:2]


@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow) for case in CASES]
)
def test_counts(kind, name):
    """Waits are exact. Launches are exact for the version of torch in the file, and within 10 % for others."""
    command = f"python benchmarks/launches.py '{kind}.{name}'"
    known, found = GOLDEN[kind][name], launches.count(kind, CASES[kind, name]())
    for key in ("waits", "elsewhere"):
        assert found.get(key) == known.get(key), f"{kind}.{name}: {key}. To accept: {command}"
    if "launches" in known:
        tolerance = 0 if SAME_TORCH else 0.1
        assert found["launches"] == pytest.approx(known["launches"], rel=tolerance), f"To accept: {command}"


NODES = launches.node_cases()
FAST_NODES = {("methods", "gcondx"), ("methods", "gcdm")}


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*case, marks=() if case in FAST_NODES else pytest.mark.slow) for case in NODES],
)
def test_steps_of_nodes_do_not_wait(kind, name):
    """New methods, protocols and evaluators for nodes are found by their YAML files."""
    waits = launches.count(kind, NODES[kind, name]()).get("waits")
    assert not waits or (kind == "methods" and states_why(name)), waits


def states_why(name):
    """Whether the docstring of a method, or of a base class, states that it waits."""
    classes = get_class(shipped_yaml("method", name)["_target_"]).__mro__
    return any("waits for the device" in " ".join((inspect.getdoc(cls) or "").split()) for cls in classes)


@pytest.mark.parametrize("name", [name for name, found in GOLDEN["methods"].items() if found.get("waits")])
def test_a_method_that_waits_states_why(name):
    assert states_why(name)


WAITING = {
    line.partition(": ")[0]
    for kind in ("evaluators", "protocols", "networks", "data")
    for found in GOLDEN[kind].values()
    for line in found.get("waits") or ()
}


@pytest.mark.parametrize("file", sorted(WAITING))
def test_a_module_that_waits_outside_of_methods_states_why(file):
    """In the docstring of the function that waits."""
    assert re.search(
        r"[Ww]aits? for the device[^.]*\b(because|for|to)\b", " ".join((ROOT / file).read_text().split())
    )


def test_file_has_exactly_the_cases():
    assert {(kind, name) for kind in launches.cases() for name in GOLDEN[kind]} == set(CASES)
