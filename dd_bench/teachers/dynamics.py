"""Training dynamics: what a network predicts for every training image while it is trained on the real set.

Coresets score images by them, e.g. by how often an image is forgotten. One network is trained for a dataset, whatever
the seed of the run, and its predictions are cached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime import mmap_file
from dd_bench.runtime.checkpoint import remove
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.trained_network import (
    WEIGHTS,
    RealTraining,
    cache_entry,
    checkpoint_in,
    load_weights,
    reading_entry,
    save_weights,
    trained_network,
)
from dd_bench.training.batches import Fetch, fetch_split
from dd_bench.training.losses import Loss, Target, target_loss
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import eval_batch_size

FILE = "dynamics.safetensors"
CPU_BATCH = 64
"""Maximum batch size of a forward pass over the real set on a CPU; larger batches do not fit into its cache."""
Outputs = Literal["training", "clean"]
OUTPUTS: tuple[Outputs, ...] = ("training", "clean")


class Dynamics:
    """The recorded predictions of a network at K points of its training, oldest first.

    Attributes:
        net: the network after its training, in eval mode.
        points: number K of points.
    """

    def __init__(self, net: Network, folder: Path, layout: mmap_file.Layout):
        """Open the predictions in `folder`.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / FILE
        _, _, begin = mmap_file.read_header(path, layout.kind)
        mmap_file.check_size(path, layout, begin)
        self.net, self.points = net, layout.arrays["norms"][1][0]
        self._scaled, self._exponents, self._norms = (
            mmap_file.array(path, layout, name, begin) for name in ("scaled", "exponents", "norms")
        )

    def probabilities(self, index: Tensor) -> Tensor:
        """Return the class probabilities of the training images `index (n,)`, float64 `(K, n, k)`.

        The largest one is computed from the others, which have a relative error of up to 4.9e-4, see `encode`. So 1
        minus the largest one has this error too, down to the resolution of float64, 1.1e-16.
        """
        rows = index.cpu().numpy()
        scaled, exponents = (
            self._scaled[:, rows].astype(np.float64),
            self._exponents[:, rows].astype(np.int32),
        )
        p = torch.from_numpy(np.ldexp(scaled, -exponents[..., None]))
        top = torch.from_numpy(scaled).argmax(2, keepdim=True)
        others = p.scatter(2, top, 0.0)
        return others.scatter(2, top, 1 - others.sum(2, keepdim=True)).to(index.device)

    def norms(self, index: Tensor) -> Tensor:
        """Return the L2 norms of the embeddings of the training images `index (n,)`, float64 `(K, n)`."""
        return torch.from_numpy(self._norms[:, index.cpu().numpy()]).double().to(index.device)


def training_dynamics(
    real: RealSet,
    architecture: Architecture,
    recipe: Recipe,
    ctx: RunContext,
    *,
    outputs: Outputs,
    points: int | None = None,
) -> Dynamics:
    """Return the predictions for all training images during the training of a network, training it if not cached.

    Args:
        real: the real set; the network is trained on its training split.
        architecture: the network.
        recipe: how it is trained.
        ctx: the context of the run. Its seed is not used, so that all seeds of a sweep share the network.
        outputs: `clean`: predictions for the images without augmentation, in eval mode, after each epoch. Each is a
            forward pass over the training split, about a third of the time of an epoch.
            `training`: the predictions that the training steps compute anyway, from the second epoch on, and one
            forward pass as in `clean` after the last epoch. Point k lies between the ends of epochs k + 1 and k + 2.
            These predictions are of augmented images, and in train mode. Without augmentation, BatchNorm and dropout,
            they differ from `clean` only in the step at which they are computed.
        points: for `clean`, record at this number of points, evenly spaced in steps, instead of after each epoch.

    Raises:
        ValueError: the cache entry is damaged, the recipe mixes images and `outputs` is `training`, or there are fewer
            steps than points.
        Diverged: the trained network is not finite.
    """
    training = RealTraining(real.train_only(), architecture, recipe, ctx.runtime)
    recorder = _recorder(training, outputs, points)

    def build(folder: Path) -> float:
        net, seconds = recorder.train(folder)
        save_weights(
            net,
            folder / WEIGHTS,
            title=_TITLE,
            epoch=training.epochs,
            knob="method.teacher.lr",
            lr=recipe.lr,
        )
        return seconds

    key = training.identity() | {"outputs": outputs, "points": points, "format": _FORMAT}
    entry = cache_entry(ctx.cache, "dynamics", key, build)
    net = load_weights(training.untrained(_SEED), entry / WEIGHTS)
    with reading_entry(entry):
        return Dynamics(net, entry, recorder.layout)


_FORMAT = "scaled"
"""Part of the key of a cache entry. Entries without it have plain float16 probabilities, which are 0 below 3e-8."""
_TITLE = "the network of the training dynamics"
_SEED = seed_for(0, "dynamics")


def _recorder(training: RealTraining, outputs: Outputs, points: int | None) -> _Recorder:
    recipe, n = training.recipe, len(training.real.train)
    if outputs == "clean":
        last = recipe.steps or training.epochs * recipe.steps_per_epoch(n)
        count = training.epochs if points is None else points
        if count > last:
            raise ValueError(
                f"method.points must be <= the {last} training steps, got {count}. Example: method.points={last}"
            )
        return _CleanRecorder(training, count, tuple(round(last * (i + 1) / count) for i in range(count)))
    if recipe.cutmix or recipe.views is not None:
        raise ValueError(
            "method.outputs=training requires images that are not mixed: method.teacher.cutmix=0 and views=null. "
            "Or use method.outputs=clean"
        )
    return _TrainingRecorder(training, training.epochs)


@dataclass
class _Recorder:
    """Trains a network and writes its predictions at `points` points."""

    training: RealTraining
    points: int

    @property
    def layout(self) -> mmap_file.Layout:
        n, k = len(self.training.real.train), self.training.real.num_classes
        arrays = {
            "scaled": ("F16", (self.points, n, k)),
            "exponents": ("U8", (self.points, n)),
            "norms": ("F32", (self.points, n)),
        }
        return mmap_file.Layout("dynamics", {}, arrays)

    def train(self, folder: Path) -> tuple[Network, float]:
        """Train the network; return it and the seconds of earlier, killed attempts."""
        raise NotImplementedError

    def create(self, folder: Path) -> None:
        """Create the file, unless an earlier attempt has created it."""
        if not mmap_file.create(folder / FILE, self.layout):
            remove(folder)  # the checkpoint of a training whose predictions no longer exist

    def write(self, folder: Path, point: int, scaled: Tensor, exponents: Tensor, norms: Tensor) -> None:
        """Write the predictions at a point (0-based)."""
        for name, values in (("scaled", scaled), ("exponents", exponents), ("norms", norms)):
            mmap_file.write(folder / FILE, self.layout, name, point, values.cpu().numpy())

    def write_clean(self, folder: Path, point: int, net: Network) -> None:
        """Compute and write the predictions for the images without augmentation, in eval mode."""
        self.write(folder, point, *clean_outputs(net, self.training))


@dataclass
class _CleanRecorder(_Recorder):
    """Records with a forward pass over the training split after each of `steps`."""

    steps: tuple[int, ...]

    def train(self, folder: Path) -> tuple[Network, float]:
        self.create(folder)
        at = {step: point for point, step in enumerate(self.steps)}

        def on_step(step: int, net: Network) -> None:
            if step in at:
                self.write_clean(folder, at[step], net)

        return trained_network(self.training, _SEED, checkpoint_in(folder), title=_TITLE, on_step=on_step)


@dataclass
class _TrainingRecorder(_Recorder):
    """Records the predictions of the training steps. It is the gradient rule of the training, see `train`.

    Attributes:
        scaled, exponents, norms: predictions of the current epoch, on the device.
    """

    scaled: Tensor = field(init=False)
    exponents: Tensor = field(init=False)
    norms: Tensor = field(init=False)
    _index: Tensor = field(init=False)
    _forward: Callable[..., tuple[Tensor, Tensor]] = field(init=False)

    def train(self, folder: Path) -> tuple[Network, float]:
        training, device = self.training, self.training.runtime.device
        n, k = len(training.real.train), training.real.num_classes
        self.create(folder)
        self.scaled = torch.zeros(n, k, dtype=torch.float16, device=device)
        self.exponents = torch.zeros(n, dtype=torch.uint8, device=device)
        self.norms = torch.zeros(n, device=device)
        self._forward = torch.compile(_outputs, dynamic=False) if training.compiles() else _outputs

        def on_epoch(epoch: int, net: Network) -> None:
            if epoch > 1:  # in the first epoch, predictions depend mostly on the position in the epoch
                self.write(folder, epoch - 2, self.scaled, self.exponents, self.norms)
            if epoch == self.points:
                self.write_clean(folder, epoch - 1, net)

        return trained_network(
            training,
            _SEED,
            checkpoint_in(folder),
            title=_TITLE,
            on_epoch=on_epoch,
            gradient_rule=self,
            fetch=self._fetch(fetch_split(training.real.train)),
            state={"scaled": self.scaled, "exponents": self.exponents, "norms": self.norms},
        )

    def _fetch(self, fetch: Fetch) -> Fetch:
        """Return `fetch` that also stores the indices of the batch."""

        def watched(index: Tensor) -> tuple[Tensor, Tensor]:
            self._index = index
            return fetch(index)

        return watched

    def __call__(
        self, net: nn.Module, loss: Loss, x: Tensor, target: Target, raw: Tensor, epoch: int
    ) -> None:
        """See `GradientRule`. The loss is the usual one; `loss` does not return the predictions."""
        logits, norms = self._forward(net, x, self.training.runtime.autocast)
        target_loss(logits, target).backward()
        self.scaled[self._index], self.exponents[self._index] = encode(logits.detach())
        self.norms[self._index] = norms.detach()


def _outputs(net: Network, x: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
    """Return the logits `(b, k)` and the norms of the embeddings `(b,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        h = net.embed(x)
        logits: Tensor = net.classifier(h)
    return logits, h.detach().float().norm(dim=1)


def encode(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities of logits `(b, k)` in a form that keeps small ones: `scaled` and `exponents`.

    Images are ranked by small probabilities: those of the easiest images sum to less than 1e-10. In float16, they would
    be inexact below 6e-5 and 0 below 3e-8. Those of each image are therefore multiplied by the power of two at which
    the largest of them is in [0.5, 1). Its exponent is at most 126, which 1e-38 needs. Probabilities above 6e-5 have
    the same rounded values as in float16 without scaling.

    Returns:
        `scaled`, float16 `(b, k)`, in which 2 marks the largest probability; `exponents`, uint8 `(b,)`. The other
        probabilities are scaled * 2^-exponents.
    """
    logits = logits.float()
    top = logits.argmax(1, keepdim=True)
    others = logits.softmax(1).scatter(1, top, 0.0)
    exponents = -others.amax(1).frexp().exponent.clamp(-126, 0)
    power = ((exponents + 127) << 23).view(torch.float32)  # 2^exponents, from the bits of a float32
    return (others * power[:, None]).half().scatter(1, top, 2.0), exponents.to(torch.uint8)


@torch.no_grad()
def clean_outputs(net: Network, training: RealTraining) -> tuple[Tensor, Tensor, Tensor]:
    """Return the predictions for the training images without augmentation, in eval mode.

    Returns:
        Scaled probabilities, float16 `(n, k)`, their exponents, uint8 `(n,)`, see `encode`, and norms of the
        embeddings, float32 `(n,)`.
    """
    split, runtime, was_training = training.real.train, training.runtime, net.training
    size = eval_batch_size(net, split.shape)
    if runtime.device.type == "cpu":
        size = min(size, CPU_BATCH)
    net.eval()
    parts = [_outputs(net, x, runtime.autocast) for x, _ in split.batches(size)]
    net.train(was_training)
    scaled, exponents = encode(torch.cat([logits for logits, _ in parts]))
    return scaled, exponents, torch.cat([norms for _, norms in parts])
