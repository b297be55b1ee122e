"""NCFM: match the characteristic functions of unit-norm embeddings (Wang et al., CVPR 2025)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dd_bench.api import (
    Architecture,
    Augment,
    DistillContext,
    ImageSet,
    Method,
    Network,
    RealSet,
    Recipe,
    check_class_sizes,
    class_labels,
    classification_loss,
    decode,
    encode,
    feature_network,
    parse,
    random_index,
    real_batch,
    untrained_feature_network,
)

from ._ncfm.frequencies import REPEATS, FrequencySampler


class NCFM(Method):
    """Each iteration matches embeddings under a blended network, and lowers a trained network's loss on the images.

        net = u * untrained_i + (1 - u) * trained_i, for a random pair i of the pool and u ~ U(0, 1)
        step down the distance of characteristic functions of real and synthetic embeddings under net
        with `frequencies=network`: step up the same distance with the parameters of the sampling network
        step down the cross-entropy of trained_i on the synthetic images
        clamp the images to [0, 1]

    Images are pixels in [0, 1]. Each stored image is a mosaic of factor^2 training images. `update=per_class` follows
    the released code: one optimiser step per class on the matching loss, then one per class on the cross-entropy. All
    classes share one tensor, so AdamW's moments and weight decay act on it 2k times per iteration. `update=joint` sums
    each loss over classes and takes two steps. `mosaic` is the interpolation that shrinks real images for the initial
    mosaics. The released code uses `nearest`.

    An iteration waits for the device once, to read the loss, which decides whether the learning rate decreases.

    Deviations from the released code:

    - Real batches are drawn from the whole class. The released code uses only the first 1024 images of a class.
    - Initial mosaics consist of random images. The released code takes the first ones.
    - Gradients are computed at the current images. The released code prefetches images, which are then outdated.
    - `frequencies=network` is the paper's sampling network, a scale mixture of normals. The released code disables this
      network, which would map only four noise vectors.
    - CIFAR-100 at ipc 10 uses AdamW. The released code uses SGD there.
    - The number of teachers and their epochs are hyper-parameters. The time to train the pool counts as `prepare`.
    """

    citation = (
        "Wang et al., Dataset Distillation with Neural Characteristic Function: "
        "A Minmax Perspective, CVPR 2025"
    )
    smoke: ClassVar[dict[str, Any]] = {
        "iterations": 2,
        "num_teachers": 1,
        "teacher.epochs": 1,
        "batch_real": 8,
        "num_frequencies": 32,
        "factor": 1,
    }

    def __init__(
        self,
        *,
        iterations: int,
        lr_img: float,
        weight_decay_img: float,
        plateau_patience: int,
        batch_real: int,
        num_teachers: int,
        teacher: dict[str, Any],
        frequencies: str,
        num_frequencies: int,
        lr_frequencies: float,
        alpha: float,
        scale: float,
        calibration: float,
        update: str,
        factor: int,
        mosaic: str,
        augment: str,
    ):
        """See `conf/method/ncfm.yaml` for the arguments.

        Raises:
            ValueError: `update`, `frequencies` or `mosaic` is unknown, or there are too few frequencies for the
                sampling network.
        """
        if update not in ("joint", "per_class"):
            raise ValueError(f"method.update must be joint or per_class, got {update!r}")
        if frequencies not in ("gaussian", "network"):
            raise ValueError(f"method.frequencies must be gaussian or network, got {frequencies!r}")
        if mosaic not in ("nearest", "antialiased"):
            raise ValueError(f"method.mosaic must be nearest or antialiased, got {mosaic!r}")
        if frequencies == "network" and num_frequencies <= REPEATS:
            raise ValueError(
                f"method.num_frequencies must be > {REPEATS} with method.frequencies=network, got {num_frequencies}. "
                f"{REPEATS} frequencies share one scale vector, and BatchNorm requires at least two scale vectors. "
                "Example: method.num_frequencies=4096"
            )
        self.iterations, self.lr_img, self.weight_decay_img = iterations, lr_img, weight_decay_img
        self.plateau_patience, self.batch_real = plateau_patience, batch_real
        self.num_teachers, self.recipe = num_teachers, parse(Recipe, teacher, "method.teacher")
        self.num_frequencies, self.lr_frequencies = num_frequencies, lr_frequencies
        self.learned = frequencies == "network"
        self.alpha, self.scale, self.calibration = alpha, scale, calibration
        self.update, self.factor, self.mosaic, self.augment = update, factor, mosaic, augment

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture)
        return reason or check_class_sizes(real, ipc, ipc * self.factor**2)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the pool of teachers."""
        for i in range(self.num_teachers):
            feature_network(real, ctx.architecture, self.recipe, i, ctx)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        k, tiles, pool = real.num_classes, self.factor**2, range(self.num_teachers)
        trained = [
            feature_network(real, ctx.architecture, self.recipe, i, ctx).requires_grad_(False) for i in pool
        ]
        untrained = [untrained_feature_network(ctx.architecture, i, ctx).requires_grad_(False) for i in pool]
        blend = untrained_feature_network(ctx.architecture, 0, ctx).requires_grad_(False)
        augment = Augment(self.augment, flip_allowed=real.flip, style="idc")
        syn = self._mosaics(real, ipc, ctx).requires_grad_()  # (k, ipc, c, h, w), pixels in [0, 1]
        optimizer = torch.optim.AdamW([syn], lr=self.lr_img, weight_decay=self.weight_decay_img)
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=self.plateau_patience)
        d = blend.classifier.in_features
        sampler = FrequencySampler(self.num_frequencies, d, self.learned, self.lr_frequencies, ctx)
        labels = torch.arange(k, device=ctx.device)[:, None].expand(k, ipc * tiles)
        groups = [slice(0, k)] if self.update == "joint" else [slice(c, c + 1) for c in range(k)]
        state: dict[str, Any] = {"images": syn, "optimizer": optimizer, "plateau": plateau, **sampler.state()}

        def distilled() -> ImageSet:
            images = syn.flatten(0, 1)
            return ImageSet.of(real, images, class_labels(real, ipc, ctx.device), "unit", self.factor)

        for step in ctx.steps(self.iterations, state, preview=distilled):
            stream = ctx.stream("blend", step)
            i = int(torch.randint(self.num_teachers, (), generator=stream.host))
            lerp(blend, untrained[i], trained[i], float(torch.rand((), generator=stream.host)))
            batch = real_batch(real, self.batch_real, ctx, step)  # (k, b, c, h, w)
            draw = augment.draw(k, ctx.stream("augment", step))
            batch = augment.apply(batch, draw)
            matched, calibrated = torch.zeros(2, device=ctx.device)
            for g in groups:
                t = sampler.draw(step, g.start)  # (frequencies, d)
                with torch.no_grad():
                    target = unit_embedding(blend, batch[g])
                embedding = unit_embedding(blend, augment.apply(self._inputs(syn[g], real), draw[g]))
                loss = self.characteristic_match(target, embedding, t)
                descend(optimizer, loss)
                if self.learned:
                    sampler.ascend(partial(self.characteristic_match, target, embedding.detach()))
                matched += loss.detach()
            for g in groups:
                new_draw = augment.draw(g.stop - g.start, ctx.stream("calibrate", step, g.start))
                images = augment.apply(self._inputs(syn[g], real), new_draw)
                logits = trained[i](images.flatten(0, 1)).unflatten(0, images.shape[:2])
                losses = [classification_loss(z, y) for z, y in zip(logits, labels[g], strict=True)]
                loss = self.calibration * torch.stack(losses).sum()
                descend(optimizer, loss)
                calibrated += loss.detach()
            with torch.no_grad():
                syn.clamp_(0, 1)
            plateau.step(float((matched + calibrated) / k))  # the only wait for the device
            ctx.log(loss=matched / k)
        return distilled()

    def _mosaics(self, real: RealSet, ipc: int, ctx: DistillContext) -> Tensor:
        """Return the initial images `(k, ipc, c, h, w)`, factor x factor mosaics of random real images."""
        index = random_index(real, ipc * self.factor**2, ctx)
        pixels = real.train.pixels(index.flatten()).float() / 255
        return encode(pixels, self.factor, self.mosaic).view(real.num_classes, ipc, *real.shape)

    def _inputs(self, syn: Tensor, real: RealSet) -> Tensor:
        """Decode and preprocess stored images: `(k, ipc, c, h, w) -> (k, ipc * factor**2, c, h, w)`."""
        images = real.preprocess(decode(syn.flatten(0, 1), self.factor))
        return images.view(len(syn), -1, *real.shape)

    def characteristic_match(self, real: Tensor, syn: Tensor, t: Tensor) -> Tensor:
        """Return the distance of empirical characteristic functions, times `scale`, summed over classes.

        Args:
            real: Unit embeddings of b real images per class, `(k, b, d)`.
            syn: Unit embeddings of b' synthetic images per class, `(k, b', d)`.
            t: m frequencies, `(m, d)`.

        Returns:
            0-d loss, the mean over t of `sqrt(alpha * (|A| - |B|)^2 + (1 - alpha) * 2 (|A||B| - Re A conj(B)))`. A and
            B are the means of exp(i <t, f>) over real and synthetic embeddings f. With alpha=1/2 the square root is
            |A - B| / sqrt 2.
        """
        a, b = characteristic(real, t), characteristic(syn, t)  # real and imaginary part, each (k, m)
        size_a, size_b = (torch.sqrt(re.square() + im.square() + 1e-12) for re, im in (a, b))
        amplitude = (size_a - size_b).square()
        phase = (2 * (size_a * size_b - a[0] * b[0] - a[1] * b[1])).clamp_min(1e-12)
        # 1e-12 keeps the gradient of the square root finite where both functions agree
        distance = torch.sqrt(self.alpha * amplitude + (1 - self.alpha) * phase + 1e-12)
        return self.scale * distance.mean(1).sum()


def characteristic(features: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of `mean_b exp(i <t, f_b>)`, each `(k, m)`.

    Args:
        features: Features f of b images per class, `(k, b, d)`.
        t: m frequencies, `(m, d)`.
    """
    angle = features @ t.T  # (k, b, m)
    return angle.cos().mean(1), angle.sin().mean(1)


def unit_embedding(net: Network, images: Tensor) -> Tensor:
    """Return the L2-normalised embeddings `(k, b, d)` of images `(k, b, c, h, w)`."""
    unit = F.normalize(net.embed(images.flatten(0, 1)), dim=1)
    return unit.view(*images.shape[:2], -1)


def lerp(into: nn.Module, start: nn.Module, end: nn.Module, u: float) -> None:
    """Set the parameters of `into` to `u * start + (1 - u) * end`, in place."""
    with torch.no_grad():
        for p, a, b in zip(into.parameters(), start.parameters(), end.parameters(), strict=True):
            p.copy_(torch.lerp(b, a, u))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimiser step on `loss`."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
