"""DD-Ranking's scores: hard-label recovery and improvement over random images."""

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

from ._references import Reference, with_epochs
from ._scoring import (
    check_at_least,
    control_context,
    control_size,
    fresh_networks_on,
    measurement,
    paired_scores,
    random_control,
    set_measurement,
)
from .accuracy import Accuracy


class DDRanking(Accuracy):
    """DD-Ranking's scores (Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation, 2025).

    For each network, all trainings start from the same seed. Accuracies are fractions.

    - `hlr` (hard-label recovery, lower is better): accuracy after training on the whole training set, minus the
      accuracy after training on the synthetic set with hard labels.
    - `ior` (improvement over random): accuracy after training on the synthetic set under the run's protocol, minus the
      accuracy after training on as many random images per class, under the same protocol and with the same number of
      steps. Each network gets its own random images.
    - `lrs` (label-robust score): combines HLR and IOR, see the function `lrs`; `lrs_weight` is the weight of IOR.
    - `ars` (augmentation-robust score): combines IOR with augmentation, with weight `ars_weight`, and IOR without
      augmentation, see the function `ars`.

    The record also contains the accuracies that these scores are computed from: `real`, `syn_hard`, `syn`, `random`,
    `syn_plain` and `random_plain`.

    A network is trained on the whole training set for `real_epochs` epochs under the protocol's recipe, with scaled
    milestones and warm-up. The result is cached for all sets of a dataset, network and recipe.

    Random images have hard labels unless the protocol has teachers. If the protocol uses the learning rate that was
    distilled with the set, networks are trained on random images with this rate too. If a class has fewer than `ipc`
    images, all classes get as many random images as the smallest class has.

    Deviations from the released package (0.2.0): Accuracies are those of the last step, not the best on test data.
    There is no separate search of the learning rate for random images. The exponentials are of fractions; in the
    package they are of percentages, so its scores are not in [0, 1].
    """

    main_metric = "lrs"
    smoke = ("evaluator.num_networks=2", "evaluator.real_epochs=2")

    def __init__(self, *, num_networks: int, real_epochs: int, lrs_weight: float, ars_weight: float):
        """Take the number of fresh networks, the epochs on the whole training set, and the weights of the scores.

        Raises:
            ValueError: A value is out of range.
        """
        super().__init__(num_networks=num_networks)
        check_at_least(1, real_epochs=real_epochs)
        for name, weight in (("lrs_weight", lrs_weight), ("ars_weight", ars_weight)):
            if not 0 <= weight <= 1:
                raise ValueError(
                    f"evaluator.{name} must be in [0, 1], got {weight}. Example: evaluator.{name}=0.5"
                )
        self.real_epochs, self.lrs_weight, self.ars_weight = real_epochs, lrs_weight, ars_weight

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. All trainings are compared at their last step.

        Stored labels are rejected, because there are none for random images or for the set without augmentation.
        """
        if protocol.selection != "last" or protocol.lr_grid:
            return (
                f"evaluator ddranking requires selection=last and no lr_grid, but protocol {protocol.name} has "
                f"selection={protocol.selection}, lr_grid={list(protocol.lr_grid)}. Use protocol=dsa-1000 or dc-300"
            )
        if protocol.labels is not None and protocol.labels.source is not None:
            return (
                "protocol.labels.source has labels of the synthetic set only, and evaluator ddranking also requires "
                "labels of random images. Use a teacher and protocol.labels.source=null"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Each measurement contains all trainings of one network."""
        fresh = fresh_networks_on(syn, real, ctx)
        fresh_hard = _with_hard_labels(fresh, syn, real, ctx)
        reference = Reference(
            real, with_epochs(ctx.protocol.recipe, self.real_epochs), ctx.runtime, ctx.cache.root
        )
        ctx_lr = replace(ctx, protocol=fresh.protocol)  # with the set's learned rate, if the protocol uses it
        size = control_size(real, ctx)
        few = [f"random images are {size} a class, as many as the smallest class has"] * (size < ctx.ipc)
        yield set_measurement(fresh, *few)
        seeds = self.seeds(ctx)
        on_set = {"syn": fresh, "syn_plain": fresh_networks_on(syn, real, _without_augmentation(ctx_lr))}
        on_set |= {} if fresh_hard is fresh else {"syn_hard": fresh_hard}
        for network, values in paired_scores(on_set, seeds, self.num_networks):
            seed, control = seeds[network], random_control(real, ctx, "random images", network)
            control_ctx = control_context(control, fresh, ctx_lr, equal_steps=True)
            values.setdefault("syn_hard", values["syn"])
            for name, context in (
                ("random", control_ctx),
                ("random_plain", _without_augmentation(control_ctx)),
            ):
                on_control = fresh_networks_on(control, real, context)
                values[name] = on_control.score(seed, on_control.compiles(self.num_networks))
            values["real"] = _finite_accuracy(reference.measure(ctx.architecture, seed, ctx.cache))
            yield measurement(network, seed, values | self._scores(values))

    def _scores(self, accuracies: dict[str, float]) -> dict[str, float]:
        hlr = accuracies["real"] - accuracies["syn_hard"]
        ior = accuracies["syn"] - accuracies["random"]
        ior_plain = accuracies["syn_plain"] - accuracies["random_plain"]
        return {
            "hlr": hlr,
            "ior": ior,
            "lrs": lrs(hlr, ior, self.lrs_weight),
            "ars": ars(ior, ior_plain, self.ars_weight),
        }


def _finite_accuracy(reference: dict[str, float]) -> float:
    """Return the test accuracy of the reference network, which was trained on the whole training set.

    Raises:
        Diverged: The trained weights are not finite.
    """
    if not reference["finite"]:
        raise Diverged(
            "the reference network on the whole training set has non-finite weights. Use a smaller protocol.recipe.lr"
        )
    return reference["test"]


def _with_hard_labels(
    fresh: FreshNetworks, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext
) -> FreshNetworks:
    """Return fresh networks on the same images with hard labels. Return `fresh` itself if its labels are hard."""
    labels = fresh.protocol.labels
    if labels is not None and labels.kind != "hard":
        hard = fresh.protocol.model_copy(update={"labels": labels.model_copy(update={"kind": "hard"})})
        return fresh_networks_on(syn, real, replace(ctx, protocol=hard))
    return replace(fresh, labels=fresh.labels.argmax(1)) if fresh.labels.ndim == 2 else fresh


def _without_augmentation(ctx: EvaluationContext) -> EvaluationContext:
    """Return the context with the same labels and without augmentation."""
    recipe = ctx.protocol.recipe.model_copy(update={"augment": "none", "cutmix": 0.0})
    if recipe.views is not None:
        no_views = {"patches": 1, "pad": 0, "scale": None, "flip": False, "mix": "none"}
        recipe = recipe.model_copy(update={"views": recipe.views.model_copy(update=no_views)})
    return replace(ctx, protocol=ctx.protocol.model_copy(update={"recipe": recipe}))


def lrs(hlr: float, ior: float, weight: float = 0.5) -> float:
    """Return the label-robust score in [0, 1], computed from HLR and IOR as fractions.

    The score is `(exp(a) - exp(-1)) / (exp(1) - exp(-1))` with `a = weight * ior - (1 - weight) * hlr`. With equal
    weights, the score cannot exceed 0.545, and it is 0.269 for a set with HLR and IOR of 0. It should be read together
    with HLR and IOR.
    """
    return _rescale(weight * ior - (1 - weight) * hlr)


def ars(augmented: float, plain: float, weight: float = 0.5) -> float:
    """Return the augmentation-robust score in [0, 1], computed from IOR with and without augmentation, as fractions."""
    return _rescale(weight * augmented + (1 - weight) * plain)


def _rescale(x: float) -> float:
    return (math.exp(x) - math.exp(-1)) / (math.exp(1) - math.exp(-1))
