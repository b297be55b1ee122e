"""Linear heads on the features of a frozen backbone, and how they are trained under a protocol with `probe`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dd_bench.api import (
    Backbone,
    Checkpoints,
    EvaluationContext,
    Inputs,
    LabelledBatches,
    Network,
    ProbeRecipe,
    Protocol,
    RealSet,
    Recipe,
    augment_images,
    fetch_from,
    generator,
    one_hot,
    ridge_weights,
    seed_for,
    seeded,
    to_device,
    train,
    unit_rows,
)


class Head(Network):
    """A linear head on features `(n, d)`. Its initial weights are N(0, std^2), its initial bias is zero."""

    def __init__(self, d: int, num_classes: int, std: float):
        """Draw the weights from the global generator."""
        super().__init__()
        self.classifier = nn.Linear(d, num_classes)
        nn.init.normal_(self.classifier.weight, std=std)
        nn.init.zeros_(self.classifier.bias)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`."""
        return [], x


class HeadOnImages(Head):
    """A linear head on images `(n, c, h, w)`, which pass through a frozen backbone that is not part of the network."""

    def __init__(self, backbone: Backbone, d: int, num_classes: int, std: float):
        """See `Head`."""
        super().__init__(d, num_classes, std)
        self.backbone = backbone

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`."""
        with torch.no_grad():
            return [], self.backbone.features(x)


class ProbeTraining:
    """Trains heads on the images of a set.

    Args:
        images: `(n, c, h, w)`.
        labels: `(n,)` or soft `(n, k)`.
        backbone: the frozen network.
        real: the dataset, for its number of classes and whether a flip preserves the class.
        ctx: context of the evaluation. Its protocol has `probe`.
    """

    def __init__(
        self, images: Inputs, labels: Tensor, backbone: Backbone, real: RealSet, ctx: EvaluationContext
    ):
        """Compute the features of all views, if the protocol fixes their number."""
        assert ctx.protocol.probe is not None
        self._images, self._labels, self._backbone, self._real, self._ctx = (
            images,
            labels,
            backbone,
            real,
            ctx,
        )
        self._probe: ProbeRecipe = ctx.protocol.probe
        self._views = None if self._probe.views is None or self._probe.ridge else self._view_features()

    def ridge(self) -> tuple[Tensor, Tensor]:
        """Return the weights `(k, d)` and the bias `(k,)` of the ridge head, in float64. The bias is zero."""
        assert self._probe.ridge is not None
        z = unit_rows(self._backbone.features_of(self._images).double())
        targets = one_hot(self._labels, self._real.num_classes, z.dtype)
        weight = ridge_weights(z, targets, self._probe.ridge).T
        return weight, weight.new_zeros(len(weight))

    def head(self, seed: int, checkpoint: Checkpoints | None) -> tuple[Tensor, Tensor]:
        """Train a head from `seed`, and return its weights `(k, d)` and bias `(k,)`."""
        ctx, n, backbone = self._ctx, len(self._labels), self._backbone
        d = int(
            backbone.features_of(self._images[torch.zeros(1, dtype=torch.int64, device=ctx.device)]).shape[1]
        )
        with seeded("cpu", seed_for(seed, "init")):
            shape = (d, self._real.num_classes, self._probe.init_std)
            net = Head(*shape) if self._views is not None else HeadOnImages(backbone, *shape)
        train(
            net.to(ctx.device),
            fetch_from(self._images, self._labels),
            n,
            scaled_recipe(ctx.protocol, n),
            seed=seed_for(seed, "train"),
            runtime=ctx.runtime.in_float32(),
            flip=self._real.flip,
            checkpoint=checkpoint,
            labelled_batches=None
            if self._views is None
            else self._batches(self._views, seed_for(seed, "train")),
        )
        return net.classifier.weight.detach(), net.classifier.bias.detach()

    @torch.no_grad()
    def _view_features(self) -> Tensor:
        """Return the features of all views of all images, `(views, n, d)`. They are the same for all heads."""
        ctx, recipe = self._ctx, self._ctx.protocol.recipe.views
        assert recipe is not None and self._probe.views is not None
        recipe = recipe.model_copy(update={"flip": recipe.flip and self._real.flip})
        index = torch.arange(len(self._labels), device=ctx.device).split(self._backbone.size)
        features = []
        for view in range(self._probe.views):
            numbers = torch.rand(
                len(self._labels), 33, generator=generator("cpu", ctx.seed, "probe view", view)
            )
            parts = zip(index, to_device(numbers, ctx.device).split(self._backbone.size), strict=True)
            features.append(
                torch.cat(
                    [
                        self._backbone.features(augment_images(self._images[rows], u, recipe))
                        for rows, u in parts
                    ]
                )
            )
        return torch.stack(features)

    def _batches(self, views: Tensor, seed: int) -> LabelledBatches:
        """Return the batches of features: epoch e has view e modulo the number of views, in random order."""
        n, size = len(self._labels), self._ctx.protocol.recipe.batch_size

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            order = torch.randperm(n, generator=generator("cpu", seed, "order", epoch))
            order = to_device(order, self._ctx.device)
            for index in order.split(size):
                z = views[epoch % len(views), index]
                yield z, z, self._labels[index]

        return batches


def scaled_recipe(protocol: Protocol, n: int) -> Recipe:
    """Return the recipe of heads on `n` images, with a learning rate in proportion to the images per batch."""
    assert protocol.probe is not None
    factor = min(protocol.recipe.batch_size, n) / protocol.probe.rate_images
    return protocol.recipe.model_copy(update={"lr": protocol.recipe.lr * factor})
