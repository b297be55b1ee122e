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


class FakeSides:
    """Networks with known times and accuracies."""

    def __init__(self, plain, ours):
        self.seeds, self.seconds = {"plain": [], "ours": []}, iter([10.0, 1.0, 2.0, 20.0])
        self.scores = {"plain": plain, "ours": ours}

    def plain(self, seeds):
        return self._train("plain", seeds)

    def ours(self, seeds):
        return self._train("ours", seeds)

    def _train(self, side, seeds):
        self.seeds[side].append(list(seeds))
        return [self.scores[side] + 0.01 * (i % 2) for i in range(len(seeds))]

    def timed(self, side, seeds):
        return next(self.seconds), side(seeds)


@pytest.mark.parametrize(("plain", "same"), [(0.5, True), (0.2, False)])
def test_comparison(plain, same):
    """Rounds: plain 10 s, ours 1 s; then ours 2 s, plain 20 s. A warm-up of two networks is not counted."""
    fake = FakeSides(plain, ours=0.5)
    row = ddranking.compare(fake, networks=4, rounds=2, plain_networks=2)
    assert [len(s) for s in fake.seeds["plain"]] == [2, 2, 2] and [len(s) for s in fake.seeds["ours"]] == [
        2,
        4,
        4,
    ]
    assert row["plain_networks_per_hour"] == pytest.approx(3600 * (2 / 10 + 2 / 20) / 2)
    assert row["ours_networks_per_hour"] == pytest.approx(3600 * (4 / 1 + 4 / 2) / 2)
    assert row["ratio"] == pytest.approx(20) and row["ratio_range"] == pytest.approx([20, 20])
    assert row["plain_accuracy"][0] == pytest.approx(plain + 0.005)
    assert row["ours_accuracy"][0] == pytest.approx(0.505)
    assert row["same_accuracy"] is same


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
