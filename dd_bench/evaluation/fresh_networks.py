"""Fresh networks: train one on a synthetic set under a protocol, and score it on held-out real data.

The unit of work of every evaluator. What a network becomes is a function of its seed; several run as processes on a
CPU, as one batched network on a GPU, or one after the other, and give the same scores up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.data.inputs import Inputs
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.records.record import TeacherId
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.workers import Tick, run_in_processes
from dd_bench.teachers.soft_labels import LabelledData
from dd_bench.training.batches import fetch_from
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.loop import train
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import accuracy
from dd_bench.training.together import train_together

Result = TypeVar("Result")


class LabelCost(NamedTuple):
    """Label mode, label bytes and teacher forwards per trained network, and the teachers used."""

    mode: str
    label_bytes: int
    teacher_forwards: int
    teachers: tuple[TeacherId, ...] = ()


@dataclass(frozen=True)
class FreshNetworks:
    """The training and test data, protocol and device that all fresh networks of a measurement share.

    Attributes:
        images: inputs to train on, `(n, c, h, w)`.
        labels: hard `(n,)` or soft `(n, k)`.
        test: scored once a network with `last` and `best_on_val`.
        val: a slice cut from train, for `best_on_val`.
        flip: whether a horizontal flip keeps the class.
        labelled: views and labels to train on, instead of the images under the recipe with their own labels.
        lenient: a network that is not finite at its end scores NaN, instead of ending the measurement.
        label_cost: of the labels that networks learn, where these are not the set's own.
        notes: remarks on the training, for the record.
    """

    architecture: Architecture
    protocol: Protocol
    images: Inputs
    labels: Tensor
    test: Split
    val: Split | None
    flip: bool
    runtime: Runtime
    labelled: LabelledData | None = None
    lenient: bool = False
    label_cost: LabelCost | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError if the selection rule needs a validation split that is not there."""
        if self.protocol.selection == "best_on_val" and self.val is None:
            raise ValueError(
                f"protocol {self.protocol.name} selects on validation data and there are none. "
                "Cut some from train: dataset.val_fraction=0.1"
            )

    def scores(self, seeds: dict[int, int], total: int) -> Iterator[tuple[int, float]]:
        """Yield `(network, accuracy in [0, 1] or NaN)` for the networks in `seeds` (index to seed), as they finish.

        `total` is the number of networks of the whole measurement: how to compute depends on it, not on how many a
        resumed run still has to train.
        """
        yield from self.each(seeds, total, _score, FreshNetworks._scores_together)

    def networks(self, seeds: dict[int, int], total: int) -> Iterator[tuple[int, Network]]:
        """Yield `(network, trained network)` for the networks in `seeds`, as they finish: for more than accuracy.

        Raises:
            ValueError: the protocol selects on test data, which is a score and not a network.
            Diverged: a network is not finite.
        """
        if self.protocol.selection == "best_on_test":
            raise ValueError(
                f"protocol {self.protocol.name} selects on test data. Use one with selection=last or best_on_val"
            )
        for network, net in self.each(seeds, total, _trained, FreshNetworks._networks_together):
            self._check(net)
            yield network, net

    def each(
        self,
        seeds: dict[int, int],
        total: int,
        one: Callable[[FreshNetworks, int, int, bool], Result],
        together: Callable[[FreshNetworks, dict[int, int]], Iterable[tuple[int, Result]]],
    ) -> Iterator[tuple[int, Result]]:
        """Yield `(network, result)` for the networks in `seeds`: the one place that decides how several are trained.

        Args:
            seeds: seed of each network that is still to be trained, by its number.
            total: number of networks of the whole measurement, see `scores`.
            one: `one(fresh, network, seed, compiled)` trains one network; it may run in another process.
            together: `together(fresh, seeds)` trains all of them in lock step.
        """
        compiled, mode = self.compiles(total), self.parallelism(total)
        if mode == "together":
            yield from together(self, seeds)
        elif mode == "processes":
            jobs, workers = list(seeds.items()), min(self.runtime.workers, total)
            for (network, _), result in run_in_processes(
                partial(_job, one, compiled), self.shared(), jobs, workers
            ):
                yield network, result
        else:
            for network, seed in seeds.items():
                yield network, one(self, network, seed, compiled)

    def parallelism(self, total: int) -> Literal["together", "processes"] | None:
        """Return how several of `total` networks are trained at a time, or None: one after the other."""
        in_step = self.protocol.selection == "last" and self.protocol.recipe.views is None
        if self.runtime.vmap and in_step and total > 1:
            return "together"
        many = min(self.runtime.workers, total) > 1 and self.runtime.uses_processes(self._work(total))
        return "processes" if many else None

    def _work(self, total: int) -> int:
        """Return how many images the training of `total` networks passes."""
        n = len(self.images)
        return total * sum(r.with_epochs(n).samples(n) for r in self.protocol.recipes())

    def compiles(self, total: int) -> bool:
        """Whether the training of `total` networks repays the compiler's warm-up."""
        return uses_compilation(self._work(total), self.architecture.shape, self.runtime)

    def score(self, seed: int, compiled: bool) -> float:
        """Train one fresh network from `seed` and returns the accuracy that the selection rule picks.

        Raises:
            Diverged: the network that counts is not finite.
        """
        net, best = self._fitted(seed, compiled)
        return best if self.protocol.selection == "best_on_test" else self._test(net)

    def _fitted(self, seed: int, compiled: bool) -> tuple[Network, float]:
        """Train one fresh network from `seed`; returns the one that counts, and its accuracy where it was picked."""
        best, kept = -1.0, {}
        for recipe in (r.with_epochs(len(self.images)) for r in self.protocol.recipes()):
            net = self.architecture.fresh(seed_for(seed, "init"), self.runtime.device)

            def evaluate_epoch(epoch: int, net: torch.nn.Module = net, recipe: Recipe = recipe) -> None:
                nonlocal best, kept
                protocol = self.protocol
                if epoch < protocol.eval_from or (epoch % protocol.eval_every and epoch != recipe.epochs):
                    return
                on = self.val if self.protocol.selection == "best_on_val" else self.test
                assert on is not None
                value = accuracy(net, on.batches(1000), self.runtime)
                if value > best:
                    best = value
                    kept = {k: v.clone() for k, v in net.state_dict().items()}

            train(
                net,
                fetch_from(self.images, self.labels),
                len(self.images),
                recipe,
                seed=seed_for(seed, "train"),
                runtime=self.runtime,
                flip=self.flip,
                compiled=compiled,
                on_epoch=None if self.protocol.selection == "last" else evaluate_epoch,
                labelled_batches=None
                if self.labelled is None
                else self.labelled.batches(seed_for(seed, "train")),
            )
        if self.protocol.selection == "best_on_val":
            net.load_state_dict(kept)
        return net, best

    def _test(self, net: torch.nn.Module) -> float:
        """Return the test accuracy; that of a network without finite weights says nothing of the set."""
        try:
            self._check(net)
        except Diverged:
            if self.lenient:
                return math.nan
            raise
        return accuracy(net, self.test.batches(1000), self.runtime)

    def _check(self, net: torch.nn.Module) -> None:
        if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
            raise Diverged(
                "a fresh network is not finite after its training. Try a smaller protocol.recipe.lr than "
                f"{self.protocol.recipe.lr}, or look at the images of the set"
            )

    def _scores_together(self, seeds: dict[int, int]) -> Iterator[tuple[int, float]]:
        for network, net in self._networks_together(seeds):
            yield network, self._test(net)

    def _networks_together(self, seeds: dict[int, int]) -> Iterator[tuple[int, Network]]:
        return zip(seeds, self._lock_step(seeds), strict=True)

    def _lock_step(self, seeds: dict[int, int]) -> list[Network]:
        recipe = self.protocol.recipe
        nets = [self.architecture.fresh(seed_for(s, "init"), self.runtime.device) for s in seeds.values()]
        return train_together(
            nets,
            fetch_from(self.images, self.labels),
            len(self.images),
            recipe,
            seeds=[seed_for(s, "train") for s in seeds.values()],
            runtime=self.runtime,
            flip=self.flip,
        )

    def shared(self) -> FreshNetworks:
        """Return what another process is given: tensors of its own, which are shared."""
        return replace(self, images=self.images.clone(), labels=self.labels.clone())


def _job(
    one: Callable[[FreshNetworks, int, int, bool], Result],
    compiled: bool,
    fresh: FreshNetworks,
    job: tuple[int, int],
    tick: Tick,
) -> Result:
    return one(fresh, *job, compiled)


def _trained(fresh: FreshNetworks, network: int, seed: int, compiled: bool) -> Network:
    return fresh._fitted(seed, compiled)[0]


def _score(fresh: FreshNetworks, network: int, seed: int, compiled: bool) -> float:
    return fresh.score(seed, compiled)
