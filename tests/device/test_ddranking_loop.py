"""Tests of `benchmarks/ddranking_loop.py`: its plain loop trains as ours does, and waits in every step."""

import importlib
from pathlib import Path

import pytest
import torch

from dd_bench.runtime.runtime import Runtime
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    ddranking = importlib.import_module("ddranking_loop")

CPU = Runtime(torch.device("cpu"), precision="fp32", compile_after=None, workers=1, spread_after=0)


def sides(real, runtime, epochs, **recipe):
    protocol = ddranking.shortened("dsa-1000", epochs)
    protocol = protocol.model_copy(update={"recipe": protocol.recipe.model_copy(update=recipe)})
    return ddranking.Sides(real, runtime, ipc=2, width=4, protocol=protocol)


def test_plain_loop_equals_ours_without_augmentation(real_set):
    """One batch per epoch, so the orders of the images differ only by rounding. The learning rate decays once."""
    both = sides(real_set(), CPU, epochs=6, augment="none")
    nets = [both.architecture.fresh(0, CPU.device) for _ in range(2)]
    recipe = both.protocol.recipe
    ddranking.plain_network(nets[0], both.images, both.labels, recipe, 0)
    fetch = fetch_from(both.images, both.labels)
    train(nets[1], fetch, len(both.images), recipe, seed=0, runtime=CPU, flip=True)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_comparison(real_set):
    row = ddranking.compare(sides(real_set(), CPU, epochs=3), networks=3, rounds=2, plain_networks=2)
    assert row["ratio_range"][0] <= row["ratio"] <= row["ratio_range"][1]
    assert 0 < row["plain_accuracy"][0] <= 1 and 0 < row["ours_accuracy"][0] <= 1
    assert isinstance(row["same_accuracy"], bool)


@pytest.mark.slow
def test_plain_loop_waits_four_times_a_step(real_set, counts, runtime):
    """Two copies to the device, the loss and the accuracy."""
    real = real_set().to(runtime.device)

    def waits(side, epochs):
        before = counts.snapshot()
        getattr(sides(real, runtime, epochs=epochs), side)([0, 1])
        counted = (counts - before).waits
        return sum(n for wait, n in counted.items() if wait.place.startswith("benchmarks/ddranking_loop.py"))

    assert waits("plain", 7) - waits("plain", 4) == 2 * 3 * 4  # two networks, three more steps
    assert waits("ours", 7) == waits("ours", 4)
