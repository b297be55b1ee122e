"""Accuracy on other networks than the one a set was distilled with: what the set has of the data, not of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    Measurement,
    Network,
    Protocol,
    RealSet,
    SyntheticSet,
)

from ._scoring import fresh_networks_on, measurement, remarks, scores_of_each
from .accuracy import Accuracy


class CrossArch(Accuracy):
    """`accuracy` of the run's own network, and `accuracy:NAME` of each of `networks`, all under the run's protocol.

    The run's network is the one to distil with; how much less the others reach is for tables to say (the papers'
    drop). Network i of every architecture has one seed, so that differences between architectures are of pairs.

    A network of `networks` that is not finite at its end is scored as chance, and the notes say which: one rate suits
    not every architecture. The run's own ends the measurement as it does for `accuracy`.

    A learned rate is of the network that it was distilled with, and so may a protocol's be: `lr` gives single
    networks their own, which is then said in the notes.
    """

    smoke = (
        *(f"~evaluator.networks.{name}" for name in ("alexnet", "vgg11", "resnet18", "lenet")),
        "+evaluator.lr.mlp=0.05",
    )

    def __init__(self, *, num_networks: int, networks: dict[str, partial[Network]], lr: dict[str, float]):
        """Takes the number of fresh networks of each kind, the other networks by name, and rates of some of them.

        Raises:
            ValueError: there is no other network, or a rate is not positive or names none.
        """
        super().__init__(num_networks=num_networks)
        if not networks:
            raise ValueError("evaluator.networks names none. Use +model@evaluator.networks.vgg11=vgg11")
        for name, rate in lr.items():
            if name not in networks:
                raise ValueError(f"evaluator.lr.{name}={rate}: evaluator.networks has {', '.join(networks)}")
            if rate <= 0:
                raise ValueError(f"evaluator.lr.{name}={rate}: wanted a rate above 0")
        self.networks, self.lr = networks, lr

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`; a network that cannot take the images is named with the way to leave it out."""
        if real.modality != "image":
            return None  # no set of theirs is measured
        for name, other in self._architectures(real).items():
            if reason := other.check_shape():
                return f"{reason}. To leave it out: ~evaluator.networks.{name}"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`; one network of each architecture at a time."""
        fresh, seeds = {self.main_metric: fresh_networks_on(syn, real, ctx)}, self.seeds(ctx)
        for name, architecture in self._architectures(real).items():
            there = replace(ctx, architecture=architecture, protocol=self._protocol(name, ctx))
            fresh[f"{self.main_metric}:{name}"] = replace(fresh_networks_on(syn, real, there), lenient=True)
        rates = [f"{name} was trained at its own rate {rate:g}" for name, rate in self.lr.items()]
        yield remarks(fresh[self.main_metric], *(note for f in fresh.values() for note in f.notes), *rates)
        for network, values in scores_of_each(fresh, seeds, self.num_networks):
            failed = [name for name, value in values.items() if math.isnan(value)]
            scored = values | dict.fromkeys(failed, 1 / real.num_classes)
            notes = [
                f"{name.partition(':')[2]}: network {network} is not finite at its end, and scored as chance"
                for name in failed
            ]
            yield measurement(network, seeds[network], scored)._replace(notes=notes)

    def _architectures(self, real: RealSet) -> dict[str, Architecture]:
        def bound(name: str, model: partial[Network]) -> Architecture:
            knobs: dict[str, Any] = dict(model.keywords)
            return Architecture(model.func, knobs, real.shape, real.num_classes, name)

        return {name: bound(name, model) for name, model in self.networks.items()}

    def _protocol(self, name: str, ctx: EvaluationContext) -> Protocol:
        """Returns the run's protocol, at the network's own rate if it has one."""
        if name not in self.lr:
            return ctx.protocol
        recipe = ctx.protocol.recipe.model_copy(update={"lr": self.lr[name]})
        return ctx.protocol.model_copy(update={"recipe": recipe, "learned_lr": False, "lr_grid": ()})
