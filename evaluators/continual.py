"""Class-incremental learning with a memory of synthetic images alone: what a set is worth as rehearsal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    Evaluator,
    FreshNetworks,
    Measurement,
    Protocol,
    RealSet,
    SyntheticImages,
    SyntheticSet,
    right_by_class,
    seed_for,
)

from ._scoring import fresh_networks_on, measurement, remarks


class Continual(Evaluator):
    """The GDumb-style protocol of DM (Zhao and Bilen, WACV 2023), which DataDAM follows.

    Classes arrive in `steps` equal parts; at each step a fresh network with a head for all classes is trained from
    scratch on the set's images of the classes seen so far, and tested on the test images of those classes.
    Order o of the classes is `numpy.random.RandomState(o).permutation(k)`, as in DM's code, whatever the run's seed.

    Network number `o * num_networks + i` is network i of order o. Of each:

    - `step S`: accuracy after S steps on the classes seen so far; `accuracy`: after the last, on all of them;
    - `average`: the mean over the steps (the incremental accuracy of the continual-learning literature);
    - `forgetting`: the mean over the parts that came before the last of the best accuracy on that part so far, less
      the one after the last step (Chaudhry et al., ECCV 2018).

    The papers distil each step's classes apart, from the real images of these classes alone. Here every step takes its
    classes out of one set. That is the same for methods that treat classes apart (random, dc, dm, datadam and the
    like, whose random numbers differ), and not for those that look at all of them at once: herding in the features of a
    network of all classes, trajectories of such networks, teachers. They know of classes that have not come yet, and so
    do soft labels, which a set keeps.

    Networks of one order share it, and count as one value where an interval is taken.
    """

    main_metric = "accuracy"
    repeats = ("orders", "num_networks")
    smoke = ("evaluator.steps=3", "evaluator.orders=2", "evaluator.num_networks=1")

    def __init__(self, *, steps: int, orders: int, num_networks: int):
        """Takes the number of steps, of orders of the classes, and of networks an order.

        Raises:
            ValueError: one of them is less than one, or there is one step alone.
        """
        for name, value, least in (
            ("steps", steps, 2),
            ("orders", orders, 1),
            ("num_networks", num_networks, 1),
        ):
            if value < least:
                raise ValueError(f"evaluator.{name}={value}: wanted at least {least}")
        self.steps, self.orders, self.num_networks = steps, orders, num_networks

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`: teachers know classes that have not come yet, and so do test data that select."""
        if protocol.labels is not None:
            return (
                f"protocol {protocol.name} has labels of teachers or views, and teachers know the classes to come. "
                "Use protocol=dsa-1000 or dc-300"
            )
        if protocol.selection != "last":
            return f"protocol {protocol.name} selects on {protocol.selection}; wanted the last step. Use dsa-1000"
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticImages):
            return None
        return f"evaluator continual measures images, this set holds {syn.kind}. Use evaluator=graph"

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`."""
        if real.modality == "image" and real.num_classes % self.steps:
            known = [s for s in range(2, real.num_classes + 1) if real.num_classes % s == 0]
            return (
                f"{real.num_classes} classes are not {self.steps} equal parts. Use evaluator.steps="
                f"{' or '.join(map(str, known))}"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`; all steps of one order and network at a time, or of one order where networks share work."""
        fresh, total = fresh_networks_on(syn, real, ctx), self.orders * self.num_networks
        yield remarks(fresh)
        seeds = {n: ctx.seed_for("evaluate", n) for n in range(total) if n not in ctx.finished}
        for n, table in fresh.each(seeds, total, partial(_table, self), partial(_tables_together, self)):
            yield _measured(n, self.order_of(n), seeds[n], torch.tensor(table))

    def order_of(self, network: int) -> int:
        """Returns the number of the order of classes that a network sees."""
        return network // self.num_networks

    def tables(self, fresh: FreshNetworks, order: int, seeds: dict[int, int]) -> dict[int, Tensor]:
        """Returns for each network the accuracy after each step on each part, `(steps, steps)`, nan above it.

        A last column holds the accuracy on all parts so far: where classes differ in size it is not their mean.
        """
        of = fresh.labels if fresh.labels.ndim == 1 else fresh.labels.argmax(1)
        k = fresh.architecture.num_classes
        parts = class_parts(order, k, self.steps).to(of.device)
        tables = {number: torch.full((self.steps, self.steps + 1), torch.nan) for number in seeds}
        for step in range(self.steps):
            seen = parts[: step + 1]
            now = _on_classes(fresh, of, seen.flatten())
            own = {number: seed_for(seed, "step", step) for number, seed in seeds.items()}
            for number, net in now.networks(own, len(own)):
                right, count = right_by_class(net, now.test.batches(1000), k, now.runtime)
                row = tables[number][step]
                row[: step + 1] = right[seen.cpu()].sum(1) / count[seen.cpu()].sum(1)
                row[-1] = right.sum() / count.sum()
        return tables


def _on_classes(fresh: FreshNetworks, of: Tensor, classes: Tensor) -> FreshNetworks:
    """Returns fresh networks on the images of some classes alone; `of (n,)` is the class of each image."""
    index, test = torch.isin(of, classes).nonzero().flatten(), fresh.test
    near = torch.isin(test.labels, classes.to(test.labels.device)).nonzero().flatten()
    images, labels = fresh.images[index], fresh.labels[index]
    return replace(fresh, images=images, labels=labels, test=test.subset(near))


def class_parts(order: int, k: int, steps: int) -> Tensor:
    """Returns the classes of each step, int64 `(steps, k / steps)`, of order number `order`."""
    return torch.from_numpy(np.random.RandomState(order).permutation(k)).view(steps, -1)


def _table(
    evaluator: Continual, fresh: FreshNetworks, network: int, seed: int, compiled: bool
) -> list[list[float]]:
    """Returns the table of one network; whether it is compiled depends on the images of each step."""
    table: list[list[float]] = evaluator.tables(fresh, evaluator.order_of(network), {network: seed})[
        network
    ].tolist()
    return table


def _tables_together(
    evaluator: Continual, fresh: FreshNetworks, seeds: dict[int, int]
) -> Iterator[tuple[int, list[list[float]]]]:
    """Yields the tables of all networks, order by order: those of one order are trained in lock step."""
    for order, numbers in groupby(seeds, evaluator.order_of):
        for n, table in evaluator.tables(fresh, order, {n: seeds[n] for n in numbers}).items():
            yield n, table.tolist()


def _measured(number: int, order: int, seed: int, table: Tensor) -> Measurement:
    """Returns the measurement of one network from its table, see `Continual.tables`."""
    after, of_part = table[:, -1].tolist(), table[:, :-1]
    values = {f"step {s + 1}": value for s, value in enumerate(after)}
    values |= {"accuracy": after[-1], "average": sum(after) / len(after)}
    best = torch.stack([of_part[s:-1, s].max() for s in range(len(after) - 1)])
    values["forgetting"] = float((best - of_part[-1, :-1]).mean())
    return measurement(number, seed, values, unit=order)
