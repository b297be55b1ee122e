"""Training dynamics: what a network predicts for every training image while it is trained on the real set.

Coresets score images by them, e.g. by how often an image is forgotten. One network is trained for a dataset, whatever
the seed of the run, and its predictions are cached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
        self._probabilities, self._norms = (
            mmap_file.array(path, layout, name, begin) for name in ("probabilities", "norms")
        )

    def probabilities(self, index: Tensor) -> Tensor:
        """Return the class probabilities of the training images `index (n,)`, float64 `(K, n, k)`.

        They are stored as float16, in which a probability close to 1 has an error of up to 2.4e-4. The largest one is
        therefore computed from the others, which are small and so have small errors.
        """
        p = torch.from_numpy(self._probabilities[:, index.cpu().numpy()]).double()
        top = p.argmax(2, keepdim=True)
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

    key = training.identity() | {"outputs": outputs, "points": points}
    entry = cache_entry(ctx.cache, "dynamics", key, build)
    net = load_weights(training.untrained(_SEED), entry / WEIGHTS)
    with reading_entry(entry):
        return Dynamics(net, entry, recorder.layout)


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
        arrays = {"probabilities": ("F16", (self.points, n, k)), "norms": ("F32", (self.points, n))}
        return mmap_file.Layout("dynamics", {}, arrays)

    def train(self, folder: Path) -> tuple[Network, float]:
        """Train the network; return it and the seconds of earlier, killed attempts."""
        raise NotImplementedError

    def create(self, folder: Path) -> None:
        """Create the file, unless an earlier attempt has created it."""
        if not mmap_file.create(folder / FILE, self.layout):
            remove(folder)  # the checkpoint of a training whose predictions no longer exist

    def write(self, folder: Path, point: int, probabilities: Tensor, norms: Tensor) -> None:
        """Write the predictions at a point (0-based)."""
        path = folder / FILE
        mmap_file.write(path, self.layout, "probabilities", point, probabilities.cpu().numpy())
        mmap_file.write(path, self.layout, "norms", point, norms.cpu().numpy())

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
        probabilities, norms: predictions of the current epoch, on the device.
    """

    probabilities: Tensor = field(init=False)
    norms: Tensor = field(init=False)
    _index: Tensor = field(init=False)
    _forward: Callable[..., tuple[Tensor, Tensor]] = field(init=False)

    def train(self, folder: Path) -> tuple[Network, float]:
        training, device = self.training, self.training.runtime.device
        n, k = len(training.real.train), training.real.num_classes
        self.create(folder)
        self.probabilities = torch.zeros(n, k, dtype=torch.float16, device=device)
        self.norms = torch.zeros(n, device=device)
        self._forward = torch.compile(_outputs, dynamic=False) if training.compiles() else _outputs

        def on_epoch(epoch: int, net: Network) -> None:
            if epoch > 1:  # in the first epoch, predictions depend mostly on the position in the epoch
                self.write(folder, epoch - 2, self.probabilities, self.norms)
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
            state={"probabilities": self.probabilities, "norms": self.norms},
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
        self.probabilities[self._index] = logits.detach().float().softmax(1).half()
        self.norms[self._index] = norms.detach()


def _outputs(net: Network, x: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
    """Return the logits `(b, k)` and the norms of the embeddings `(b,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        h = net.embed(x)
        logits: Tensor = net.classifier(h)
    return logits, h.detach().float().norm(dim=1)


@torch.no_grad()
def clean_outputs(net: Network, training: RealTraining) -> tuple[Tensor, Tensor]:
    """Return the predictions for the training images without augmentation, in eval mode.

    Returns:
        Probabilities, float16 `(n, k)`, and norms of the embeddings, float32 `(n,)`.
    """
    split, runtime, was_training = training.real.train, training.runtime, net.training
    size = eval_batch_size(net, split.shape)
    if runtime.device.type == "cpu":
        size = min(size, CPU_BATCH)
    net.eval()
    parts = [_outputs(net, x, runtime.autocast) for x, _ in split.batches(size)]
    net.train(was_training)
    logits = torch.cat([logits for logits, _ in parts]).float()
    return logits.softmax(1).half(), torch.cat([norms for _, norms in parts])
