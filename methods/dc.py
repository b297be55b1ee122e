"""DC: match the network gradients of real and synthetic images (Zhao et al., ICLR 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dd_bench.api import (
    Architecture,
    Augment,
    DistillContext,
    ImageSet,
    Method,
    Network,
    RealSet,
    Recipe,
    State,
    batch_coupled,
    check_class_sizes,
    check_norm,
    class_chunks,
    class_labels,
    classification_loss,
    fetch_from,
    initial_images,
    real_batch,
    train,
)

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""The paper's numbers of image updates and inner epochs, `(outer, inner_epochs)`, by ipc."""


class DC(Method):
    """Each iteration samples a network, and alternates `outer` image updates with training of this network.

    The network is trained on the synthetic images. An image update is one SGD step on the row-cosine distance of the
    real and synthetic gradients, summed over classes. The gradients of all classes are computed by one batched call
    (`vmap(grad)`), which equals the per-class loop.
    BatchNorm layers are in eval mode during an image update, after one batch of real images of all classes has updated
    their running statistics.

    Deviations from the released code:

    - There are exactly `iterations` iterations. The released code runs one more, and saves a set that is one update
      newer than the one it evaluates.
    - For an ipc outside the paper's table, outer=ipc and inner_epochs=max(1, 500 // ipc). The released code does not
      support such an ipc.
    - One-dimensional parameters are not differentiated. Their distance is 0 in the released code.
    - If a class has fewer than `batch_real` images, the real batches of all classes have the size of this class.
    - The `mse` and `cos` distances are not available.
    """

    citation = "Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, ICLR 2021"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 2, "outer": 2, "inner_epochs": 1, "batch_real": 8}

    def __init__(
        self,
        *,
        iterations: int,
        outer: int | None,
        inner_epochs: int | None,
        lr_img: float,
        momentum_img: float,
        lr_net: float,
        batch_real: int,
        batch_train: int,
        init: str,
        augment: str,
        norm: str | None,
        class_chunk: int | None,
    ):
        """See `conf/method/dc.yaml` for the arguments.

        Raises:
            ValueError: `outer` or `inner_epochs` is less than 1.
        """
        for name, value in (("outer", outer), ("inner_epochs", inner_epochs)):
            if value is not None and value < 1:
                raise ValueError(
                    f"method.{name} must be >= 1, or null for the paper's value at each ipc, got {value}. "
                    f"Example: method.{name}=null"
                )
        self.iterations, self.outer, self.inner_epochs = iterations, outer, inner_epochs
        self.lr_img, self.momentum_img, self.lr_net = lr_img, momentum_img, lr_net
        self.batch_real, self.batch_train = batch_real, batch_train
        self.init, self.augment, self.norm, self.class_chunk = init, augment, norm, class_chunk

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture) or check_norm(self.norm, architecture)
        return reason or (check_class_sizes(real, ipc, ipc, "real") if self.init == "real" else None)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        outer, inner = self.loops(ipc)
        architecture, k = ctx.architecture.override(norm=self.norm), real.num_classes
        augment = Augment(self.augment, flip_allowed=real.flip)
        recipe, exact = self._inner_recipe(inner), ctx.runtime.in_float32()
        syn = initial_images(self.init, real, ipc, ctx).requires_grad_()  # (k, ipc, c, h, w)
        labels = class_labels(real, ipc, ctx.device)
        optimizer = torch.optim.SGD([syn], lr=self.lr_img, momentum=self.momentum_img)

        def distilled() -> ImageSet:
            return ImageSet.of(real, syn.flatten(0, 1), labels, "input")

        state: State = {"images": syn, "optimizer": optimizer}
        for step in ctx.steps(self.iterations, state, preview=distilled):
            net = ctx.network(architecture, step)
            total = torch.zeros((), device=ctx.device)
            for update in range(outer):
                if batch_coupled(net):
                    freeze_batch_norm(net, real_batch(real, 16, ctx, step, update, "norm").flatten(0, 1))
                batch = real_batch(real, self.batch_real, ctx, step, update)  # (k, b, c, h, w)
                draw = augment.draw(k, ctx.stream("augment", step, update))  # one per class, for both batches
                batch, siamese = augment.apply(batch, draw), augment.apply(syn, draw)
                optimizer.zero_grad()
                for part in class_chunks(k, self.class_chunk, net):
                    with torch.no_grad():
                        target = class_gradients(net, batch[part], part.start)
                    loss = gradient_match(target, class_gradients(net, siamese[part], part.start))
                    loss.backward(retain_graph=part.stop < k)
                    total += loss.detach()
                optimizer.step()
                if update + 1 < outer:
                    data = fetch_from(syn.detach().flatten(0, 1), labels)
                    seed = ctx.seed_for("inner", step, update)
                    train(net, data, len(labels), recipe, seed=seed, runtime=exact, flip=real.flip)
            ctx.log(loss=total / (k * outer))  # mean per class and update, as in the released code
        return distilled()

    def loops(self, ipc: int) -> tuple[int, int]:
        """Return the number of image updates per network, and of training epochs between two updates."""
        outer, inner = LOOPS.get(ipc, (ipc, max(1, 500 // ipc)))
        return self.outer or outer, self.inner_epochs or inner

    def _inner_recipe(self, epochs: int) -> Recipe:
        """Return the recipe of the inner loop: SGD without momentum, augmentation drawn for each image."""
        return Recipe(
            optimizer="sgd",
            lr=self.lr_net,
            momentum=0.0,
            weight_decay=0.0,
            batch_size=self.batch_train,
            epochs=epochs,
            milestones=(),
            gamma=1.0,
            reset_optimizer=False,
            augment=self.augment,
            augment_style="dsa",
            align_corners=False,
            cutmix=0.0,
            cutmix_beta=1.0,
        )


def class_gradients(net: Network, images: Tensor, first_class: int) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy of each class, for parameters with two or more dimensions.

    Args:
        net: Network whose BatchNorm layers, if any, are in eval mode.
        images: Images of consecutive classes, `(k', b, c, h, w)`.
        first_class: Label of the first class.

    Returns:
        Gradients `(k', *parameter.shape)` by parameter name. They are differentiable with respect to `images` unless
        grad mode is off.
    """
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    weights = {name: p for name, p in parameters.items() if p.ndim > 1}
    others = {name: p for name, p in parameters.items() if p.ndim <= 1} | dict(net.named_buffers())
    count, b = images.shape[:2]
    labels = torch.arange(first_class, first_class + count, device=images.device)[:, None].expand(count, b)

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return classification_loss(functional_call(net, {**weights, **others}, (x,)), y)

    of_all = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    gradients: dict[str, Tensor] = of_all(weights, images, labels)
    return gradients


def gradient_match(real: dict[str, Tensor], syn: dict[str, Tensor]) -> Tensor:
    """Return the row-cosine distance of gradients `(k, out, ...)`, summed over classes, parameters and rows.

    This is equation 10 of DC. Each weight is a matrix with one row per output unit. A row adds
    `1 - <a, b> / (|a||b| + 1e-6)`, in [0, 2].
    """
    total = torch.zeros((), device=next(iter(real.values())).device)
    for name, target in real.items():
        a, b = target.flatten(2), syn[name].flatten(2)  # (k, out, rest)
        # clamp_min keeps the gradient of the square root finite for dead units
        norms = a.square().sum(-1).sqrt() * b.square().sum(-1).clamp_min(1e-30).sqrt()
        total = total + (1 - (a * b).sum(-1) / (norms + 1e-6)).sum()
    return total


def freeze_batch_norm(net: Network, images: Tensor) -> None:
    """Update the running statistics of BatchNorm layers with one batch of all classes, then set them to eval mode.

    As in the released code, this is a single update with momentum 0.1. The statistics of a fresh network therefore stay
    near mean 0 and variance 1.
    """
    net.train()
    with torch.no_grad():
        net(images)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
