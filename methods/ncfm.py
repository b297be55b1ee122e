"""NCFM: match characteristic functions of unit-norm embeddings (Wang et al., CVPR 2025)."""

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
    """Per iteration: blend an untrained and a trained network, match, calibrate with the trained one's loss.

    Images are pixels in [0, 1], clamped after each iteration; each stored image is factor^2 training images.
    `update=per_class` is the released code's: an optimiser step a class and loss, on one tensor of all
    classes, so AdamW's moments and decay act 2k times an iteration. `update=joint` sums over classes and
    steps twice.

    Deviations from the released code: real batches are drawn from the whole class (the code only ever sees
    its first 1024 images); initial mosaics are random images (the code takes the first ones); gradients are
    of the current images (the code prefetches stale ones); `frequencies=network` is the paper's sampling
    network, a scale mixture of normals (the code ships it off, and maps four noise vectors); the plateau
    schedule sees the mean loss of the iteration; CIFAR-100 at ipc 10, where the code takes SGD, gets AdamW
    too. The number of teachers and their epochs are knobs; a pool's building time is `prepare`.
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
        augment: str,
    ):
        """Takes the keys of `conf/method/ncfm.yaml`, which says what they are."""
        if update not in ("joint", "per_class"):
            raise ValueError(f"method.update={update!r} is unknown; take joint or per_class")
        if frequencies not in ("gaussian", "network"):
            raise ValueError(f"method.frequencies={frequencies!r} is unknown; take gaussian or network")
        if frequencies == "network" and num_frequencies <= REPEATS:
            raise ValueError(
                f"method.num_frequencies={num_frequencies}: {REPEATS} frequencies share a scale, and the "
                f"sampling network normalises over scales. Take more than {REPEATS}"
            )
        self.iterations, self.lr_img, self.weight_decay_img = iterations, lr_img, weight_decay_img
        self.plateau_patience, self.batch_real = plateau_patience, batch_real
        self.num_teachers, self.recipe = num_teachers, parse(Recipe, teacher, "method.teacher")
        self.num_frequencies, self.lr_frequencies = num_frequencies, lr_frequencies
        self.learned = frequencies == "network"
        self.alpha, self.scale, self.calibration = alpha, scale, calibration
        self.update, self.factor, self.augment = update, factor, augment

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture)
        return reason or check_class_sizes(real, ipc, ipc * self.factor**2)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Trains the pool of teachers."""
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

        for step in ctx.steps(self.iterations, state):
            stream = ctx.stream("blend", step)
            i = int(torch.randint(self.num_teachers, (), generator=stream.host))
            lerp(blend, untrained[i], trained[i], float(torch.rand((), generator=stream.host)))
            batch = real_batch(real, self.batch_real, ctx, step)  # (k, b, c, h, w)
            draw = augment.draw(k, ctx.stream("augment", step))
            batch = augment.apply(batch, draw)
            matched = torch.zeros((), device=ctx.device)
            for g in groups:
                t = sampler.draw(step, g.start)  # (frequencies, d)
                with torch.no_grad():
                    wanted = unit_embedding(blend, batch[g])
                found = unit_embedding(blend, augment.apply(self._inputs(syn[g], real), draw[g]))
                loss = self.characteristic_match(wanted, found, t)
                descend(optimizer, loss)
                if self.learned:
                    sampler.ascend(partial(self.characteristic_match, wanted, found.detach()))
                again = augment.draw(g.stop - g.start, ctx.stream("calibrate", step, g.start))
                images = augment.apply(self._inputs(syn[g], real), again)
                logits = trained[i](images.flatten(0, 1)).unflatten(0, images.shape[:2])
                calibration = sum(classification_loss(z, y) for z, y in zip(logits, labels[g], strict=True))
                descend(optimizer, self.calibration * calibration)  # type: ignore[arg-type]
                matched += loss.detach()
            with torch.no_grad():
                syn.clamp_(0, 1)
            plateau.step(float(matched / k))  # the one number an iteration that Python waits for
            ctx.log(loss=matched / k)
        images = syn.flatten(0, 1)
        return ImageSet.of(real, images, class_labels(real, ipc, ctx.device), "unit", self.factor)

    def _mosaics(self, real: RealSet, ipc: int, ctx: DistillContext) -> Tensor:
        """Returns starting images `(k, ipc, c, h, w)`: factor x factor mosaics of random real ones."""
        index = random_index(real, ipc * self.factor**2, ctx)
        pixels = real.train.pixels(index.flatten()).float() / 255
        return encode(pixels, self.factor).view(real.num_classes, ipc, *real.shape)

    def _inputs(self, syn: Tensor, real: RealSet) -> Tensor:
        """Decodes and preprocesses stored images: `(k, ipc * factor**2, c, h, w)`."""
        images = real.preprocess(decode(syn.flatten(0, 1), self.factor))
        return images.view(len(syn), -1, *real.shape)

    def characteristic_match(self, real: Tensor, syn: Tensor, t: Tensor) -> Tensor:
        """Distance of empirical characteristic functions, times `scale`, summed over classes.

        Args:
            real: unit embeddings `(k, b, d)`.
            syn: unit embeddings `(k, b', d)`.
            t: frequencies `(m, d)`.

        Returns:
            0-d: mean over t of `sqrt(alpha * (|A| - |B|)^2 + (1 - alpha) * 2 (|A||B| - Re A conj(B)))`,
            where A and B are the means of exp(i <t, f>). With alpha=1/2 it is |A - B| / sqrt 2.
        """
        a, b = characteristic(real, t), characteristic(syn, t)  # real and imaginary part, each (k, m)
        size_a, size_b = (torch.sqrt(re.square() + im.square() + 1e-12) for re, im in (a, b))
        amplitude = (size_a - size_b).square()
        phase = (2 * (size_a * size_b - a[0] * b[0] - a[1] * b[1])).clamp_min(1e-12)
        # the floor keeps the root's gradient finite where both functions agree
        distance = torch.sqrt(self.alpha * amplitude + (1 - self.alpha) * phase + 1e-12)
        return self.scale * distance.mean(1).sum()


def characteristic(features: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns real and imaginary part of `mean_b exp(i <t, f_b>)`, each `(k, m)`, of features `(k, b, d)`."""
    angle = features @ t.T  # (k, b, m)
    return angle.cos().mean(1), angle.sin().mean(1)


def unit_embedding(net: Network, images: Tensor) -> Tensor:
    """Returns embeddings of length 1, `(k, b, d)`, of images `(k, b, c, h, w)`."""
    unit = F.normalize(net.embed(images.flatten(0, 1)), dim=1)
    return unit.view(*images.shape[:2], -1)


def lerp(into: nn.Module, start: nn.Module, end: nn.Module, u: float) -> None:
    """Sets the parameters of `into` to `u * start + (1 - u) * end`, in place."""
    with torch.no_grad():
        for p, a, b in zip(into.parameters(), start.parameters(), end.parameters(), strict=True):
            p.copy_(torch.lerp(b, a, u))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Takes one optimiser step down `loss`."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
