"""Class-incremental learning with the synthetic images as the only memory."""

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
    SyntheticSet,
    correct_by_class,
    eval_batches,
    seed_for,
)

from ._scoring import check_at_least, check_images, fresh_networks_on, measurement, set_measurement


class Continual(Evaluator):
    """Class-incremental learning with the GDumb-style protocol of DM (Zhao and Bilen, WACV 2023) and DataDAM.

    Classes arrive in `steps` equal parts. At each step, a fresh network with a head for all classes is trained from
    scratch on the synthetic images of the classes seen so far, and tested on the test images of these classes.
    Order o of the classes is `numpy.random.RandomState(o).permutation(k)`, as in DM's released code. It does not depend
    on the run's seed.

    Network `o * num_networks + i` is network i of order o. The metrics of each network are:

    - `step S`: accuracy after S steps on the classes seen so far.
    - `accuracy`: accuracy after the last step, on all classes.
    - `average`: mean over the steps, called incremental accuracy in the continual-learning literature.
    - `forgetting`: best accuracy on a part of the classes before the last step, minus the accuracy on this part after
      the last step; mean over all parts except the last (Chaudhry et al., ECCV 2018).

    The papers distil the classes of each step separately, from the real images of these classes only. Here all steps
    use the classes of one set. Up to random numbers, this is equivalent for methods that treat classes independently
    (such as random, dc, dm and datadam). It is not equivalent for methods that use all classes jointly, such as herding
    with the features of a network of all classes, trajectory matching, and methods with teachers. These use information
    about future classes, and so do the soft labels of a set.

    The networks of one order are not independent. They count as one value in confidence intervals.
    """

    main_metric = "accuracy"
    repeats = ("orders", "num_networks")
    smoke = ("evaluator.steps=3", "evaluator.orders=2", "evaluator.num_networks=1")

    def __init__(self, *, steps: int, orders: int, num_networks: int):
        """Take the numbers of steps, class orders, and networks per class order.

        Raises:
            ValueError: There are fewer than two steps, no order or no network.
        """
        check_at_least(2, steps=steps)
        check_at_least(1, orders=orders, num_networks=num_networks)
        self.steps, self.orders, self.num_networks = steps, orders, num_networks

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. Teachers and selection on test data would use information about future classes."""
        if protocol.labels is not None:
            return (
                f"evaluator continual does not support protocol {protocol.name}, which labels images with teachers or "
                "views, because teachers are trained on future classes. Use protocol=dsa-1000 or dc-300"
            )
        if protocol.selection != "last":
            return (
                f"evaluator continual requires a protocol with selection=last, but protocol {protocol.name} has "
                f"selection={protocol.selection}. Use protocol=dsa-1000"
            )
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        return check_images(syn)

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`."""
        if real.modality == "image" and real.num_classes % self.steps:
            divisors = [s for s in range(2, real.num_classes + 1) if real.num_classes % s == 0]
            return (
                f"evaluator.steps must divide the {real.num_classes} classes of {real.name}, got {self.steps}. "
                f"Use evaluator.steps={' or '.join(map(str, divisors))}"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Networks are trained one after another, or all networks of a class order together."""
        fresh, total = fresh_networks_on(syn, real, ctx), self.orders * self.num_networks
        yield set_measurement(fresh)
        seeds = {n: ctx.seed_for("evaluate", n) for n in range(total) if n not in ctx.finished}
        for n, table in fresh.each(
            seeds, total, partial(_table, self), partial(_tables_together, self), self.steps
        ):
            yield _measurement_of(n, self.order_of(n), seeds[n], torch.tensor(table))

    def total_networks(self) -> int:
        """See `Evaluator`."""
        return self.orders * self.num_networks

    def order_of(self, network: int) -> int:
        """Return the number of the class order of a network."""
        return network // self.num_networks

    def tables(self, fresh: FreshNetworks, order: int, seeds: dict[int, int]) -> dict[int, Tensor]:
        """Return the accuracies of each network of a class order, `(steps, steps + 1)`.

        Row s and column p is the accuracy after step s on the test images of part p, or nan if part p has not arrived
        yet. The last column is the accuracy on the test images of all parts seen so far. If classes differ in size, it
        is not the mean of the other columns.
        """
        classes = fresh.labels if fresh.labels.ndim == 1 else fresh.labels.argmax(1)
        k = fresh.architecture.num_classes
        parts = class_parts(order, k, self.steps).to(classes.device)
        tables = {network: torch.full((self.steps, self.steps + 1), torch.nan) for network in seeds}
        for step in range(self.steps):
            seen = parts[: step + 1]
            current = _on_classes(fresh, classes, seen.flatten())
            step_seeds = {network: seed_for(seed, "step", step) for network, seed in seeds.items()}
            for network, net in current.networks(step_seeds, len(step_seeds)):
                right, count = correct_by_class(net, eval_batches(net, current.test), k, current.runtime)
                row = tables[network][step]
                row[: step + 1] = right[seen.cpu()].sum(1) / count[seen.cpu()].sum(1)
                row[-1] = right.sum() / count.sum()
        return tables


def _on_classes(fresh: FreshNetworks, image_classes: Tensor, classes: Tensor) -> FreshNetworks:
    """Return fresh networks restricted to `classes`; `image_classes (n,)` is the class of each image."""
    index, test = torch.isin(image_classes, classes).nonzero().flatten(), fresh.test
    test_index = torch.isin(test.labels, classes.to(test.labels.device)).nonzero().flatten()
    images, labels = fresh.images[index], fresh.labels[index]
    return replace(fresh, images=images, labels=labels, test=test.subset(test_index))


def class_parts(order: int, k: int, steps: int) -> Tensor:
    """Return the classes of each step in class order `order`, int64 `(steps, k / steps)`."""
    return torch.from_numpy(np.random.RandomState(order).permutation(k)).view(steps, -1)


def _table(
    evaluator: Continual, fresh: FreshNetworks, network: int, seed: int, compiled: bool
) -> list[list[float]]:
    """Return the table of one network. `compiled` is ignored, because each step decides whether to compile."""
    tables = evaluator.tables(fresh, evaluator.order_of(network), {network: seed})
    table: list[list[float]] = tables[network].tolist()
    return table


def _tables_together(
    evaluator: Continual, fresh: FreshNetworks, seeds: dict[int, int]
) -> Iterator[tuple[int, list[list[float]]]]:
    """Yield `(network, table)` for all networks.

    The networks of one class order are trained together, and the class orders one after another.
    """
    for order, networks in groupby(seeds, evaluator.order_of):
        for n, table in evaluator.tables(fresh, order, {n: seeds[n] for n in networks}).items():
            yield n, table.tolist()


def _measurement_of(network: int, order: int, seed: int, table: Tensor) -> Measurement:
    """Return the measurement of one network from its table, see `Continual.tables`."""
    seen, by_part = table[:, -1].tolist(), table[:, :-1]
    values = {f"step {s + 1}": value for s, value in enumerate(seen)}
    values |= {"accuracy": seen[-1], "average": sum(seen) / len(seen)}
    best = torch.stack([by_part[s:-1, s].max() for s in range(len(seen) - 1)])
    values["forgetting"] = float((best - by_part[-1, :-1]).mean())
    return measurement(network, seed, values, unit=order)
