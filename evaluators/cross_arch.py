"""Accuracy on network architectures other than the one that the set was distilled with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    Measurement,
    Network,
    Protocol,
    RealSet,
    SyntheticSet,
)

from ._scoring import fresh_networks_on, measurement, paired_scores, set_measurement
from .accuracy import Accuracy


class CrossArch(Accuracy):
    """`accuracy` of the run's network, and `accuracy:NAME` of each of `networks`, all under the run's protocol.

    The run's network is the one used for distillation. The tables show the differences between this network and the
    others. Network i has the same seed for every architecture, so that these differences are paired.

    If a network of `networks` diverges, its score is chance accuracy and a note names it, because one learning rate
    does not suit every architecture. If the run's network diverges, the run diverges, as with `evaluator=accuracy`.

    The learning rate of a protocol, or one that was learned with the set, may fit only the network of the distillation.
    `lr` sets the learning rate of single networks, and the record gets a note.
    """

    smoke = (
        *(f"~evaluator.networks.{name}" for name in ("alexnet", "vgg11", "resnet18", "lenet")),
        "+evaluator.lr.mlp=0.05",
    )

    def __init__(self, *, num_networks: int, networks: dict[str, partial[Network]], lr: dict[str, float]):
        """Take the number of networks per architecture, the other architectures, and learning rates for some of these.

        Raises:
            ValueError: There is no other architecture, or a rate is not positive or has an unknown name.
        """
        super().__init__(num_networks=num_networks)
        if not networks:
            raise ValueError(
                "evaluator.networks must contain at least one network, got none. "
                "Example: +model@evaluator.networks.vgg11=vgg11"
            )
        for name, rate in lr.items():
            if name not in networks:
                raise ValueError(
                    f"the keys of evaluator.lr must be in evaluator.networks ({', '.join(networks)}), got {name!r}. "
                    f"Example: +evaluator.lr.{next(iter(networks))}={rate}"
                )
            if rate <= 0:
                raise ValueError(
                    f"evaluator.lr.{name} must be > 0, got {rate}. Example: +evaluator.lr.{name}=0.01"
                )
        self.networks, self.lr = networks, lr

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`. Names the first network that does not support the image shape."""
        if real.modality != "image":
            return None  # `check_set` rejects all sets of this dataset
        for name, architecture in self._architectures(real).items():
            if reason := architecture.check_shape(real.train.labels.device):
                return f"{reason}. To leave this network out, use ~evaluator.networks.{name}"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Each measurement contains one network of each architecture."""
        fresh, seeds = {self.main_metric: fresh_networks_on(syn, real, ctx)}, self.seeds(ctx)
        for name, architecture in self._architectures(real).items():
            other = replace(ctx, architecture=architecture, protocol=self._protocol(name, ctx))
            fresh[f"{self.main_metric}:{name}"] = replace(fresh_networks_on(syn, real, other), lenient=True)
        rates = [f"{name} was trained at its own rate {rate:g}" for name, rate in self.lr.items()]
        notes = [note for f in fresh.values() for note in f.notes]
        yield set_measurement(fresh[self.main_metric], *notes, *rates)
        for network, values in paired_scores(fresh, seeds, self.num_networks):
            diverged = [name for name, value in values.items() if math.isnan(value)]
            values = values | dict.fromkeys(diverged, 1 / real.num_classes)
            notes = [
                f"{name.partition(':')[2]}: network {network} is not finite at its end, and scored as chance"
                for name in diverged
            ]
            yield measurement(network, seeds[network], values)._replace(notes=notes)

    def _architectures(self, real: RealSet) -> dict[str, Architecture]:
        return {
            name: Architecture(model.func, dict(model.keywords), real.shape, real.num_classes, name)
            for name, model in self.networks.items()
        }

    def _protocol(self, name: str, ctx: EvaluationContext) -> Protocol:
        """Return the run's protocol, with the learning rate of this network if `lr` has one."""
        if name not in self.lr:
            return ctx.protocol
        recipe = ctx.protocol.recipe.model_copy(update={"lr": self.lr[name]})
        return ctx.protocol.model_copy(update={"recipe": recipe, "learned_lr": False, "lr_grid": ()})
