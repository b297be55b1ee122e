"""Train fresh networks on a synthetic set under a protocol, and score them on held-out real data.

The evaluators of images use this module. Each network has its own seed. Several networks are trained in parallel
processes on a CPU, in lock step as one batched network on a GPU, or one after the other. The scores are the same up to
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.data.inputs import Inputs
from dd_bench.evaluation.curves import Curve, CurveFolder, recorded_curve
from dd_bench.evaluation.groups import in_groups
from dd_bench.evaluation.selection import Best, StackedBest
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.records.record import TeacherId
from dd_bench.runtime.files import content_key
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.workers import Tick, no_tick, run_in_processes
from dd_bench.teachers.soft_labels import LabelledData
from dd_bench.training.batches import Fetch, fetch_from
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.loop import train
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import Checkpoints, saved_epochs
from dd_bench.training.scoring import accuracies, accuracy, eval_batch_size, eval_batches
from dd_bench.training.stacked_networks import StackedNetworks
from dd_bench.training.together import train_together

Result = TypeVar("Result")


class LabelCost(NamedTuple):
    """The cost of labels that teachers provide.

    Attributes:
        mode: label mode, e.g. `kd`.
        label_bytes: bytes of the labels that a user stores in addition to the images.
        teacher_forwards: see `Labeler.forwards`.
        teachers: the teachers used.
        teacher_bytes: see `Labeler.teacher_bytes`.
    """

    mode: str
    label_bytes: int
    teacher_forwards: int
    teachers: tuple[TeacherId, ...] = ()
    teacher_bytes: int = 0


@dataclass(frozen=True)
class FreshNetworks:
    """The training and test data, protocol and device that all fresh networks of a measurement share.

    Attributes:
        images: training inputs, `(n, c, h, w)`.
        labels: hard `(n,)` or soft `(n, k)`.
        test: test split; with selection `last` and `best_on_val`, each network is tested on it once.
        val: validation split, cut from the training split, for `best_on_val`.
        flip: whether a horizontal flip preserves the class.
        labelled: views and labels to train on, instead of `images` and `labels` with the recipe's augmentation.
        lenient: whether a network with non-finite weights scores NaN, instead of raising `Diverged`.
        label_cost: cost of the labels that networks are trained on; None for the set's own labels.
        notes: remarks on the training, for the record.
        unfinished: where the states of unfinished networks are saved; None to save nothing.
        tick: called after each epoch of a network that is trained alone.
        curves: where training curves are written; None to write none.
        on_epoch: called with the number of finished epochs and the network, if the network is trained alone.
        fetch: maps the indices of a batch to images and labels; None: those of `images` and `labels`.
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
    unfinished: Checkpoints | None = None
    tick: Tick = no_tick
    curves: CurveFolder | None = None
    on_epoch: Callable[[int, Network], None] | None = None
    fetch: Fetch | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the selection rule needs a validation split and there is none."""
        if self.protocol.selection == "best_on_val" and self.val is None:
            raise ValueError(
                f"protocol {self.protocol.name} requires a validation split, and the dataset has none. "
                "Use dataset.val_fraction=0.1"
            )

    def scores(self, seeds: dict[int, int], total: int) -> Iterator[tuple[int, float]]:
        """Yield `(index, accuracy in [0, 1] or NaN)` for the networks in `seeds` (index to seed) as they finish.

        `total` is the number of networks of the whole measurement. It decides whether networks are trained in parallel.
        The number of networks in `seeds` does not affect this decision, so that a resumed run trains in the same way.
        """
        yield from self.each(seeds, total, _score, FreshNetworks._scores_together)

    def networks(self, seeds: dict[int, int], total: int) -> Iterator[tuple[int, Network]]:
        """Yield `(index, trained network)` for the networks in `seeds` (index to seed) as they finish.

        Raises:
            ValueError: the protocol selects on test data, which gives a score but no network.
            Diverged: a network has non-finite weights.
        """
        if self.protocol.selection == "best_on_test":
            raise ValueError(
                f"protocol {self.protocol.name} selects networks on test data, which this evaluator does not support. "
                "Use a protocol with selection=last or selection=best_on_val"
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
        trainings: int = 1,
    ) -> Iterator[tuple[int, Result]]:
        """Train the networks in `seeds` in the way given by `parallelism`, and yield `(network, result)` for each.

        Args:
            seeds: a dictionary from the index of each network that must still be trained to its seed.
            total: number of networks of the whole measurement, including those that are already trained.
            one: `one(fresh, network, seed, compiled)` trains one network and returns its result. It may be called in
                another process.
            together: `together(fresh, seeds)` trains networks as one batched network and yields `(network, result)`
                for each.
            trainings: number of trainings of the protocol that one result takes, for the progress.
        """
        compiled, mode = self.compiles(total), self.parallelism(total)
        if mode == "together":
            for group, results in in_groups(
                seeds,
                self.runtime.lock_step,
                partial(together, self),
                lambda network, seed: one(self, network, seed, compiled),
                lambda group: self._remove(*group.values()),
            ):
                yield from results
                self._remove(*group.values())
        elif mode == "processes":
            jobs, workers = list(seeds.items()), min(self.runtime.workers, total)
            with self._progress(seeds, trainings) as advance:
                for (network, _), result in run_in_processes(
                    partial(_job, one, compiled), self.shared(), jobs, workers, advance
                ):
                    yield network, result
                    self._remove(seeds[network])
        else:
            with self._counted(seeds, trainings) as fresh:
                for network, seed in seeds.items():
                    yield network, one(fresh, network, seed, compiled)
                    self._remove(seed)

    @contextmanager
    def _counted(self, seeds: dict[int, int], trainings: int) -> Iterator[FreshNetworks]:
        """Yield a copy that shows the progress of networks that this process trains."""
        if self.tick is not no_tick:  # the caller counts the epochs
            yield self
            return
        ticks = 0
        with self._progress(seeds, trainings) as advance:

            def tick() -> None:
                nonlocal ticks
                ticks += 1
                advance(ticks)

            yield replace(self, tick=tick)

    @contextmanager
    def _progress(self, seeds: dict[int, int], trainings: int) -> Iterator[Callable[[int], None]]:
        """Show the epochs of networks. Yield a function to call with the number of epochs so far."""
        n = len(self.images)
        saved = [self._checkpoint(seed) for seed in seeds.values()]
        start = sum(saved_epochs(c.path)[0] for c in saved if c is not None)
        epochs = trainings * sum(r.with_epochs(n).epochs for r in self.protocol.recipes())
        with Progress("fresh networks", len(seeds) * epochs, start) as progress:
            yield lambda ticks: progress.advance_to(start + ticks, {})

    def _checkpoint(self, *seeds: int, rate: int = 0) -> Checkpoints | None:
        """Return the checkpoint of the networks with these seeds, which are trained together.

        `rate` is the index of their learning rate in the protocol's `lr_grid`.
        """
        if self.unfinished is None:
            return None
        what: list[Any] = [self.architecture.describe(), self.protocol.model_dump(mode="json"), list(seeds)]
        what += [rate] if rate else []
        name = f"{self.unfinished.path.name}-{content_key(what)}.checkpoint.safetensors"
        return self.unfinished._replace(path=self.unfinished.path.with_name(name), final=False)

    def _remove(self, *seeds: int) -> None:
        """Remove the checkpoints of networks whose results were used."""
        for rate in range(len(self.protocol.recipes())):
            if (checkpoint := self._checkpoint(*seeds, rate=rate)) is not None:
                checkpoint.remove()

    def parallelism(self, total: int) -> Literal["together", "processes"] | None:
        """Return how `total` networks are trained at the same time, or None if they are trained one after the other."""
        if self.runtime.lock_step.networks > 1 and total > 1:
            return "together"
        parallel = min(self.runtime.workers, total) > 1 and self.runtime.uses_processes(self._samples(total))
        return "processes" if parallel else None

    def _samples(self, total: int) -> int:
        """Return the number of images that are processed in the training of `total` networks."""
        n = len(self.images)
        return total * sum(r.with_epochs(n).samples(n) for r in self.protocol.recipes())

    def compiles(self, total: int) -> bool:
        """Return whether compilation saves more time than its warm-up takes in the training of `total` networks."""
        return uses_compilation(self._samples(total), self.architecture.shape, self.runtime)

    def score(self, seed: int, compiled: bool) -> float:
        """Train one fresh network from `seed` and return its accuracy in [0, 1] (or NaN) under the selection rule.

        Raises:
            Diverged: the selected network has non-finite weights, and `lenient` is false.
        """
        net, best = self._train(seed, compiled)
        return best if self.protocol.selection == "best_on_test" else self._test(net)

    def _train(self, seed: int, compiled: bool) -> tuple[Network, float]:
        """Train one fresh network from `seed`. Return the selected network and the accuracy that selected it."""
        best, protocol = Best(), self.protocol
        selects = protocol.selection != "last"
        for recipe, checkpoint in self._trainings(seed):
            net = self.architecture.fresh(seed_for(seed, "init"), self.runtime.device)

            size = eval_batch_size(net, self.architecture.shape) if selects else 0
            with self._curve(recipe, seed) as curve:

                def after_epoch(
                    epoch: int,
                    net: Network = net,
                    recipe: Recipe = recipe,
                    size: int = size,
                    curve: Curve | None = curve,
                ) -> None:
                    self.tick()
                    if self.on_epoch is not None:
                        self.on_epoch(epoch, net)
                    if curve is not None:
                        curve.end_epoch(epoch)
                    if selects and self._is_evaluated(epoch, recipe.epochs):
                        value = accuracy(net, self._selection_split().batches(size), self.runtime)
                        best.update(value, net)
                        if curve is not None:
                            curve.add(epoch, self._selection_score, value)

                train(
                    net,
                    self.fetch or fetch_from(self.images, self.labels),
                    len(self.images),
                    recipe,
                    seed=seed_for(seed, "train"),
                    runtime=self.runtime,
                    flip=self.flip,
                    compiled=compiled,
                    on_epoch=after_epoch,
                    on_loss=None if curve is None else curve.add_loss,
                    labelled_batches=None
                    if self.labelled is None
                    else self.labelled.batches([seed_for(seed, "train")]),
                    checkpoint=checkpoint,
                    state={"best": best} if selects else None,
                )
        if protocol.selection == "best_on_val":
            net.load_state_dict(best.state)
        return net, best.value

    def _trainings(self, *seeds: int) -> list[tuple[Recipe, Checkpoints | None]]:
        """Return the recipe of each learning rate that is left to train, and its checkpoint.

        The checkpoint of a learning rate also contains the best network of all earlier learning rates.
        """
        recipes = [r.with_epochs(len(self.images)) for r in self.protocol.recipes()]
        checkpoints = [self._checkpoint(*seeds, rate=i) for i in range(len(recipes))]
        first = max((i for i, c in enumerate(checkpoints) if c is not None and c.exists), default=0)
        return list(zip(recipes[first:], checkpoints[first:], strict=True))

    def _test(self, net: torch.nn.Module) -> float:
        """Return the test accuracy, or NaN for a network with non-finite weights if `lenient`."""
        try:
            self._check(net)
        except Diverged:
            if self.lenient:
                return math.nan
            raise
        return accuracy(net, eval_batches(net, self.test), self.runtime)

    def _check(self, net: torch.nn.Module) -> None:
        if not bool(torch.stack([torch.isfinite(p).all() for p in net.parameters()]).all()):
            raise Diverged(
                "a fresh network has non-finite weights after training with protocol.recipe.lr="
                f"{self.protocol.recipe.lr}. Check the images of the set, or use a smaller value"
            )

    def _scores_together(self, seeds: dict[int, int]) -> Iterator[tuple[int, float]]:
        nets, best = self._train_together(seeds)
        if best is not None and self.protocol.selection == "best_on_test":
            yield from zip(seeds, best.value.tolist(), strict=True)
        else:
            yield from ((network, self._test(net)) for network, net in zip(seeds, nets, strict=True))

    def _networks_together(self, seeds: dict[int, int]) -> Iterator[tuple[int, Network]]:
        return zip(seeds, self._train_together(seeds)[0], strict=True)

    def _train_together(self, seeds: dict[int, int]) -> tuple[list[Network], StackedBest | None]:
        """Like `_train`, for networks in lock step. Return the selected networks and what selected them."""
        protocol, best = self.protocol, None
        training_seeds = [seed_for(s, "train") for s in seeds.values()]
        for recipe, checkpoint in self._trainings(*seeds.values()):
            nets = [self.architecture.fresh(seed_for(s, "init"), self.runtime.device) for s in seeds.values()]
            if protocol.selection != "last" and best is None:
                best = StackedBest(nets)
            size = max(1, eval_batch_size(nets[0], self.architecture.shape) // len(nets))
            loss = torch.zeros((), device=self.runtime.device)
            with self._curve(recipe, *seeds.values()) as curve:
                train_together(
                    nets,
                    self.fetch or fetch_from(self.images, self.labels),
                    len(self.images),
                    recipe,
                    seeds=training_seeds,
                    runtime=self.runtime,
                    flip=self.flip,
                    labelled_batches=None if self.labelled is None else self.labelled.batches(training_seeds),
                    on_epoch=partial(self._after_epoch_together, best, curve, loss, recipe.epochs, size),
                    checkpoint=checkpoint,
                    state=None if best is None else best.tensors(),
                    mean_loss=None if curve is None else loss,
                )
        if best is not None and protocol.selection == "best_on_val":
            best.restore(nets)
        return nets, best

    def _after_epoch_together(
        self,
        best: StackedBest | None,
        curve: Curve | None,
        loss: Tensor,
        last: int,
        size: int,
        epoch: int,
        networks: StackedNetworks,
    ) -> None:
        """Add the loss to the curve after `epoch` of `last` epochs, and evaluate if the protocol requires it.

        Networks are evaluated on batches of `size` images.
        """
        if curve is not None:
            curve.add_loss(loss.clone())
            curve.end_epoch(epoch)
        if best is not None and self._is_evaluated(epoch, last):
            batches = self._selection_split().batches(size)
            values = accuracies(networks, batches, self.runtime.device)
            best.update(values, networks.state())
            if curve is not None:
                curve.add(epoch, self._selection_score, values)

    def _curve(self, recipe: Recipe, *seeds: int) -> AbstractContextManager[Curve | None]:
        """Return the curve of a training of networks with these seeds, see `recorded_curve`."""
        part = f"lr {recipe.lr:g}" if len(self.protocol.recipes()) > 1 else ""
        return recorded_curve(self.curves, self.architecture.name, seeds, recipe.epochs, part)

    @property
    def _selection_score(self) -> str:
        return "val_accuracy" if self.protocol.selection == "best_on_val" else "test_accuracy"

    def _is_evaluated(self, epoch: int, last: int) -> bool:
        """Return whether networks are evaluated after `epoch` epochs, to select the best; `last` is the last epoch."""
        protocol = self.protocol
        return epoch >= protocol.eval_from and (epoch % protocol.eval_every == 0 or epoch == last)

    def _selection_split(self) -> Split:
        """Return the split on which the best epoch is selected."""
        split = self.val if self.protocol.selection == "best_on_val" else self.test
        assert split is not None
        return split

    def shared(self) -> FreshNetworks:
        """Return a copy with its own tensors, which can be shared with other processes."""
        return replace(self, images=self.images.clone(), labels=self.labels.clone())


def _job(
    one: Callable[[FreshNetworks, int, int, bool], Result],
    compiled: bool,
    fresh: FreshNetworks,
    job: tuple[int, int],
    tick: Tick,
) -> Result:
    return one(replace(fresh, tick=tick), *job, compiled)


def _trained(fresh: FreshNetworks, network: int, seed: int, compiled: bool) -> Network:
    return fresh._train(seed, compiled)[0]


def _score(fresh: FreshNetworks, network: int, seed: int, compiled: bool) -> float:
    return fresh.score(seed, compiled)
