"""What a set contains: coverage, redundancy, copies of real images, gradients, and which classes networks confuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dd_bench.api import (
    EvaluationContext,
    FreshNetworks,
    Measurement,
    Network,
    RealSet,
    Recipe,
    SyntheticSet,
    feature_network,
    parse,
    seed_for,
)

from ._comparison import Comparison
from ._confusion import confusion
from ._gradient_alignment import measured_epochs
from ._scoring import check_at_least, fresh_networks_on, measurement, set_measurement
from .accuracy import Accuracy

MAX_NAMED_CLASSES = 20
"""A dataset with more classes has no metric for each class."""


class Diagnostics(Accuracy):
    """Statistics of the images of a set, in the features of networks trained on the whole real training set.

    Features are those of the last layer before the classifier (`Network.embed`). Network i is measured with feature
    network i, so that the intervals contain the choice of the features. Statistics of a class are averaged over the
    classes. They compare up to `real_per_class` real training images of a class with all images of the set whose label
    is this class (the most probable class of a soft label), after decoding.

    - `coverage`, `density`: see `coverage_and_density`. With `neighbours=null`, a set of independent real images has a
      coverage of about 0.5 and a density of about 1 at every IPC.
    - `redundancy`: mean cosine of the features of two images of a class, from which the mean of all classes is
      subtracted; `redundancy_nearest`: of an image and the most similar other image of its class; `redundancy_real`: of
      two real images. Not at one image per class.
    - `nearest_pixel`: root mean squared difference of an image from the nearest real training image of any class, for
      pixels in [0, 1]; `nearest_pixel_real`: of a real image from the nearest other one. `nearest_feature` and
      `nearest_feature_real`: the same for features. `copies`: share of images that are real images.
    - `alignment`: cosine of the gradient of the set and the gradient of `gradient_images` random real training images,
      averaged over epochs of the training of a fresh network on the set under the run's protocol; `alignment:EPOCH`: at
      one epoch, 0 being the untrained network. Gradients are those of the cross-entropy with the stored labels, without
      augmentation.
    - `accuracy`, `worst_class`, and `class:NAME` for up to 20 classes: test accuracy of this network after training. A
      note lists the most frequent confusions.

    The values describe a set and are not a goal: a selection of real images has many copies, and a set of optimised
    images can have a low coverage and yet a high accuracy.
    """

    main_metric = "coverage"
    smoke = (
        "evaluator.num_networks=2",
        "evaluator.features.steps=3",
        "evaluator.gradient_images=12",
        "evaluator.points=3",
    )

    def __init__(
        self,
        *,
        num_networks: int,
        features: dict[str, Any],
        real_per_class: int,
        neighbours: int | None,
        gradient_images: int,
        points: int,
    ):
        """See `conf/evaluator/diagnostics.yaml` for the arguments.

        Raises:
            ValueError: a value is too small, or the recipe is wrong.
        """
        super().__init__(num_networks=num_networks)
        check_at_least(1, gradient_images=gradient_images, neighbours=1 if neighbours is None else neighbours)
        check_at_least(2, real_per_class=real_per_class, points=points)
        self.recipe = parse(Recipe, features, "evaluator.features")
        self.real_per_class, self.neighbours = real_per_class, neighbours
        self.gradient_images, self.points = gradient_images, points

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        yield set_measurement(fresh)
        comparison = Comparison(
            fresh.images,
            fresh.labels,
            real,
            ctx.seed,
            self.real_per_class,
            self.gradient_images,
            self.neighbours,
        )
        total = torch.zeros(real.num_classes, real.num_classes, dtype=torch.int64)
        for network, seed in seeds.items():
            features = feature_network(real, ctx.architecture, self.recipe, network, ctx)
            values = comparison.feature_statistics(features) | comparison.pixel_distances
            net, alignments = self._trained(fresh, network, seed, comparison)
            counts = confusion(net, real.test, ctx.runtime).sum(0)
            total += counts
            yield measurement(network, seed, values | alignments | _class_scores(counts, real.class_names))
        if seeds:
            yield Measurement(results=[_confusions(total, real.class_names, len(seeds))])

    def _trained(
        self, fresh: FreshNetworks, network: int, seed: int, comparison: Comparison
    ) -> tuple[Network, dict[str, float]]:
        """Train a fresh network on the set, and return it and the alignments during its training."""
        epochs = fresh.protocol.recipe.with_epochs(len(fresh.images)).epochs
        points = measured_epochs(self.points, epochs)
        untrained = fresh.architecture.fresh(seed_for(seed, "init"), fresh.runtime.device)
        found = {0: comparison.alignment(untrained)}

        def measure(epoch: int, net: Network) -> None:
            if epoch in points:
                found[epoch] = comparison.alignment(net)

        # A resumed training would not call `on_epoch` for the epochs before its checkpoint.
        observed = replace(fresh, on_epoch=measure, unfinished=None)
        ((_, net),) = observed.networks({network: seed}, total=1)
        values = torch.stack(list(found.values())).tolist()  # read once, after the training
        by_epoch = {f"alignment:{epoch}": value for epoch, value in zip(found, values, strict=True)}
        return net, {"alignment": fmean(values)} | by_epoch


def _class_scores(counts: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Return the accuracy, that of the worst class, and those of all classes if there are not too many.

    `counts (k, k)` has the number of test images by class and prediction. Classes without test images are left out.
    """
    size, right = counts.sum(1), counts.diagonal()
    by_class = {name: r / n for name, r, n in zip(names, right.tolist(), size.tolist(), strict=True) if n}
    scores = {"accuracy": int(right.sum()) / int(size.sum()), "worst_class": min(by_class.values())}
    if len(names) <= MAX_NAMED_CLASSES:
        scores |= {f"class:{name}": value for name, value in by_class.items()}
    return scores


def _confusions(counts: Tensor, names: tuple[str, ...], networks: int) -> str:
    """Return the three most frequent errors: the class, the prediction, and the share of the images of the class."""
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).fill_diagonal_(0)
    k, top = len(names), shares.flatten().topk(min(3, shares.numel()))
    pairs = [
        f"{names[i // k]} as {names[i % k]} ({100 * share:.0f} %)"
        for share, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return f"most frequent confusions of {networks} network(s): {', '.join(pairs)}"
