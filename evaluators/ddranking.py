"""DD-Ranking's scores: how far hard labels fall short of real data, and what the images add to random ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from dd_bench.api import (
    Diverged,
    EvaluationContext,
    FreshNetworks,
    Measurement,
    Protocol,
    RealSet,
    SyntheticSet,
)

from ._references import Reference, of_length
from ._scoring import (
    control_context,
    control_size,
    fresh_networks_on,
    measurement,
    random_control,
    remarks,
    scores_of_each,
)
from .accuracy import Accuracy


class DDRanking(Accuracy):
    """HLR, IOR, LRS and ARS (Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation, 2025).

    Of network i, from one seed, accuracies as fractions:

    - `hlr` (hard-label recovery, lower is better): of the whole training set, less that of the set with its classes
      alone;
    - `ior` (improvement over random): of the set under the run's protocol, less that of as many random images a class
      under the same protocol and number of steps, drawn anew for every network;
    - `lrs`: see `lrs`, with the weight `lrs_weight` of IOR;
    - `ars`: see `ars`, the same difference with and without augmentation, `ars_weight` the share of the first.

    Beside them what they are made of: `real`, `syn_hard`, `syn`, `random`, `syn_plain`, `random_plain`.

    The whole training set is trained on for `real_epochs` epochs under the protocol's recipe, its milestones and
    warm-up at the same shares, once for all sets of a dataset, network and recipe: it is cached.

    Random images have their classes as labels, unless the protocol's teachers speak, and are trained at the rate that a
    set has learned, if the protocol asks for that; where a class is smaller than `ipc` there are fewer of all.

    Otherwise than the released package (0.2.0): accuracies are of the last step, and not the best on test; random
    images get no search of a learning rate of their own; and the exponentials take fractions. The package puts
    percentages into them, with which its scores leave [0, 1].
    """

    main_metric = "lrs"
    smoke = ("evaluator.num_networks=2", "evaluator.real_epochs=2")

    def __init__(self, *, num_networks: int, real_epochs: int, lrs_weight: float, ars_weight: float):
        """Takes the number of fresh networks, the epochs on the whole training set, and the weights of the scores.

        Raises:
            ValueError: one of them is out of range.
        """
        super().__init__(num_networks=num_networks)
        if real_epochs < 1:
            raise ValueError(f"evaluator.real_epochs={real_epochs}: wanted at least one")
        for name, weight in (("lrs_weight", lrs_weight), ("ars_weight", ars_weight)):
            if not 0 <= weight <= 1:
                raise ValueError(f"evaluator.{name}={weight}: wanted a share in [0, 1]")
        self.real_epochs, self.lrs_weight, self.ars_weight = real_epochs, lrs_weight, ars_weight

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`: the whole training set is trained on to the last step, and so is what it is compared with.

        Labels of stored views know no other images, nor the same without augmentation.
        """
        if protocol.selection != "last" or protocol.lr_grid:
            return (
                f"protocol {protocol.name} selects ({protocol.selection}, lr_grid={list(protocol.lr_grid)}), and HLR "
                "compares last steps. Use protocol=dsa-1000 or dc-300"
            )
        if protocol.labels is not None and protocol.labels.source is not None:
            return (
                "protocol.labels.source labels the views of one set, and these scores need labels of random images "
                "too. Use a teacher, and protocol.labels.source=null"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`; all trainings of one network at a time."""
        own = fresh_networks_on(syn, real, ctx)
        hard = _of_classes(own, syn, real, ctx)
        reference = Reference(
            real, of_length(ctx.protocol.recipe, self.real_epochs), ctx.runtime, ctx.cache.root
        )
        here = replace(ctx, protocol=own.protocol)  # at the set's learned rate, if that is the rule
        size = control_size(real, ctx)
        few = [f"random images are {size} a class, as many as the smallest class has"] * (size < ctx.ipc)
        yield remarks(own, *few)
        seeds = self.seeds(ctx)
        of_set = {"syn": own, "syn_plain": fresh_networks_on(syn, real, _plain(here))}
        of_set |= {} if hard is own else {"syn_hard": hard}
        for network, values in scores_of_each(of_set, seeds, self.num_networks):
            seed, drawn = seeds[network], random_control(real, ctx, "random images", network)
            there = control_context(drawn, own, here, equal_steps=True)
            values.setdefault("syn_hard", values["syn"])
            for name, context in (("random", there), ("random_plain", _plain(there))):
                fresh = fresh_networks_on(drawn, real, context)
                values[name] = fresh.score(seed, fresh.compiles(self.num_networks))
            values["real"] = _of_reals(reference.of(ctx.architecture, seed, ctx.cache))
            yield measurement(network, seed, values | self._summed_up(values))

    def _summed_up(self, of: dict[str, float]) -> dict[str, float]:
        hlr, ior = of["real"] - of["syn_hard"], of["syn"] - of["random"]
        return {
            "hlr": hlr,
            "ior": ior,
            "lrs": lrs(hlr, ior, self.lrs_weight),
            "ars": ars(ior, of["syn_plain"] - of["random_plain"], self.ars_weight),
        }


def _of_reals(found: dict[str, float]) -> float:
    """Returns the accuracy after training on the whole set.

    Raises:
        Diverged: that training did not end in finite weights.
    """
    if not found["finite"]:
        raise Diverged(
            "the reference on the whole training set is not finite. Try a smaller protocol.recipe.lr"
        )
    return found["test"]


def _of_classes(
    own: FreshNetworks, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext
) -> FreshNetworks:
    """Returns the examination of the same images with their classes alone; `own` itself where it has no more."""
    labels = own.protocol.labels
    if labels is not None and labels.kind != "hard":
        hard = own.protocol.model_copy(update={"labels": labels.model_copy(update={"kind": "hard"})})
        return fresh_networks_on(syn, real, replace(ctx, protocol=hard))
    return replace(own, labels=own.labels.argmax(1)) if own.labels.ndim == 2 else own


def _plain(ctx: EvaluationContext) -> EvaluationContext:
    """Returns the context of a training without augmentation, on the same labels."""
    recipe = ctx.protocol.recipe.model_copy(update={"augment": "none", "cutmix": 0.0})
    if recipe.views is not None:
        still = {"patches": 1, "pad": 0, "scale": None, "flip": False, "mix": "none"}
        recipe = recipe.model_copy(update={"views": recipe.views.model_copy(update=still)})
    return replace(ctx, protocol=ctx.protocol.model_copy(update={"recipe": recipe}))


def lrs(hlr: float, ior: float, weight: float = 0.5) -> float:
    """Returns the label-robust score in [0, 1] of HLR and IOR as fractions.

    `(exp(a) - exp(-1)) / (exp(1) - exp(-1))` of `a = weight * ior - (1 - weight) * hlr`. At equal weights it cannot
    exceed 0.545, and a set that is as good as random and as real data has 0.269: read the parts with it.
    """
    return _scaled(weight * ior - (1 - weight) * hlr)


def ars(augmented: float, plain: float, weight: float = 0.5) -> float:
    """Returns the augmentation-robust score in [0, 1] of the improvements over random with and without augmentation."""
    return _scaled(weight * augmented + (1 - weight) * plain)


def _scaled(x: float) -> float:
    return (math.exp(x) - math.exp(-1)) / (math.exp(1) - math.exp(-1))
